"""A form with a file, as clients and strangers send it, in pieces of any size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from pilotlight.api import upload
from pilotlight.api.edge import ClientGone
from pilotlight.batch.files import Incoming
from pilotlight.errors import BadRequest, BodyTooLarge, Error

pytestmark = pytest.mark.anyio

EDGE = "xyz"
LIMIT = 100_000


def part(name: str, content: bytes, *, more: str = "") -> bytes:
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def file(content: bytes, name: str = "in.jsonl") -> bytes:
    return part("file", content, more=f'; filename="{name}"')


END = f"--{EDGE}--\r\n".encode()
PURPOSE = part("purpose", b"batch")
NO_NAME = b'Content-Disposition: form-data; name="\xff"'
RUBBISH = [PURPOSE, END, EDGE.encode(), NO_NAME, file(b"a"), b"--", b"\r\n", b"\r", b"\0", b": "]


def request(body: bytes, size: int = 997, *, is_left: bool = False, **headers: str) -> Request:
    """What arrives in pieces of this size; if the client leaves, without the last one."""
    pieces = [body[begin : begin + size] for begin in range(0, len(body), size)] or [b""]
    headers = {"content_type": f"multipart/form-data; boundary={EDGE}"} | headers

    def messages() -> Iterator[dict[str, Any]]:
        for piece in pieces[:-1]:
            yield {"type": "http.request", "body": piece, "more_body": True}
        last = {"type": "http.request", "body": pieces[-1], "more_body": False}
        yield {"type": "http.disconnect"} if is_left else last

    coming = messages()

    async def receive() -> dict[str, Any]:
        return next(coming)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def read(folder: Path, http: Request, limit: int = LIMIT) -> tuple[upload.Form, bytes]:
    """The form, and what is on the disk."""
    with Incoming(folder) as incoming:
        form = await upload.read(http, incoming, limit)
        await incoming.sync()
        content = (folder / incoming.id).read_bytes()
        assert incoming.size == len(content)
        return form, content


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10**9])
@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"\r\n--xy\r\n--", b"a\r\n--xyy\r\n" * 50, bytes(range(256))]
)
async def test_the_file_is_what_was_sent(tmp_path: Path, size: int, content: bytes) -> None:
    """Whatever is in it, however it is cut, before or behind the other fields."""
    for body in (file(content) + PURPOSE + END, PURPOSE + file(content) + END):
        form, written = await read(tmp_path, request(body, size))
        assert (form.filename, form.fields, written) == ("in.jsonl", {"purpose": "batch"}, content)


async def test_a_large_file_goes_to_the_disk_as_it_comes(tmp_path: Path) -> None:
    """In pieces of a megabyte."""
    content = b"0123456789" * 500_000
    _, written = await read(tmp_path, request(file(content) + END, 65_536), limit=10**7)
    assert written == content


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (PURPOSE + END, "file is required"),
        (file(b"x"), "cut off"),
        (b"", "cut off"),
        (END, "cannot be read|cut off|required"),
        (b"no form at all", "cannot be read"),
        (file(b"x") + file(b"y") + END, "file is given twice"),
        (PURPOSE + PURPOSE + file(b"x") + END, "purpose is given twice"),
        (part("", b"x") + END, "no name"),
        (part("purpose", b"x" * 5000) + END, "more than 4096 bytes"),
        (b"".join(part(f"f{number}", b"") for number in range(20)) + END, "more than 16 fields"),
        (f"--{EDGE}\r\n{'X' * 9000}: y\r\n\r\nx\r\n".encode() + END, "cannot be read"),
        (
            f"--{EDGE}\r\n".encode() + b"X: y\r\n" * 99 + b"\r\nx\r\n" + END,
            "cannot be read",
        ),
    ],
)
async def test_what_is_no_such_form_is_refused(tmp_path: Path, body: bytes, complaint: str) -> None:
    """And nothing is left on the disk."""
    with pytest.raises(BadRequest, match=complaint):
        await read(tmp_path, request(body))
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240  # an empty folder


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
async def test_another_type_is_refused(tmp_path: Path, kind: str) -> None:
    """Also one without a boundary."""
    with pytest.raises(BadRequest, match="must be multipart/form-data with a boundary"):
        await read(tmp_path, request(file(b"x") + END, content_type=kind))


async def test_a_boundary_is_bounded(tmp_path: Path) -> None:
    """Every byte of the body may be compared with all of it."""
    kind = "multipart/form-data; boundary=" + "x" * 300
    with pytest.raises(BadRequest, match="cannot be read"):
        await read(tmp_path, request(file(b"x") + END, content_type=kind))


@pytest.mark.parametrize("headers", [{}, {"content_length": "200000"}])
async def test_too_much_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    """At once if the client says how much it is."""
    with pytest.raises(BodyTooLarge, match=r"server\.upload_limit"):
        await read(tmp_path, request(file(b"x" * (LIMIT + 1)) + END, **headers))
    await read(tmp_path, request(file(b"x" * LIMIT) + END))


async def test_endless_rubbish_is_refused(tmp_path: Path) -> None:
    """Behind the end of the form, too."""
    with pytest.raises(BodyTooLarge):
        await read(tmp_path, request(file(b"x") + END + b"x" * (LIMIT + upload.MAX_AROUND)))


async def test_a_client_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    """Of its file."""
    with pytest.raises(ClientGone):
        await read(tmp_path, request(file(b"x" * 5000) + END, is_left=True))
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240  # an empty folder


async def test_what_cannot_be_deleted_hides_no_reason(tmp_path: Path) -> None:
    """The disk has turned read-only, say; here somebody has cleared the folder."""
    with pytest.raises(ClientGone), Incoming(tmp_path) as incoming:
        (tmp_path / incoming.id).unlink()
        (tmp_path / incoming.id).mkdir()
        raise ClientGone
    (tmp_path / incoming.id).rmdir()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=st.lists(st.sampled_from(RUBBISH), max_size=12), size=st.integers(1, 50))
async def test_any_rubbish_is_a_form_or_an_error(tmp_path: Path, pieces: list[bytes], size: int) -> None:
    """Of ours, never a bug."""
    try:
        form, _ = await read(tmp_path, request(b"".join(pieces), size))
    except Error as error:
        assert error.status in (400, 413)
    else:
        assert form.filename is not None
