"""A multipart form with one file: its content goes to the disk as it comes, its other fields are kept.

Everything is bounded; what is no form of that kind is a `BadRequest`. Knows no endpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import Request

from pilotlight.api.edge import ClientGone
from pilotlight.batch.files import Incoming
from pilotlight.errors import BadRequest, BodyTooLarge

FILE = "file"
MAX_FIELDS = 16
MAX_FIELD = 4096
"""Bytes of a value that is no file."""
MAX_AROUND = 64 * 1024
"""Bytes of the body that are no file: boundaries, headers, fields."""
PIECE = 2**20
"""Bytes that are written at once."""


@dataclass
class Form:
    """What came besides the file's content. `filename` is a stranger's text."""

    filename: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


async def read(http: Request, target: Incoming, limit: int) -> Form:
    """The form; its file, of at most `limit` bytes, is in `target`.

    Raises `BadRequest`, `BodyTooLarge` and `DiskFull`.
    """
    length = http.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit + MAX_AROUND:
        raise BodyTooLarge(f"the body has {length} bytes; server.upload_limit is {limit}")
    parts = _Parts(_boundary(http))
    more, num_bytes = True, 0
    while more:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        data, more = message.get("body", b""), message.get("more_body", False)
        num_bytes += len(data)
        parts.feed(data)
        if num_bytes > limit + MAX_AROUND or target.size + len(parts.content) > limit:
            raise BodyTooLarge(f"the file has more than {limit} bytes, which is server.upload_limit")
        if len(parts.content) >= PIECE or not more:
            await target.write(bytes(parts.content))
            parts.content.clear()
    return parts.form()


def _boundary(http: Request) -> bytes:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(http.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise BadRequest("content-type must be multipart/form-data with a boundary")
    return options[b"boundary"]


class _Parts:
    """What the parser has found so far. `content` is what of the file is not on the disk yet."""

    def __init__(self, boundary: bytes) -> None:
        from python_multipart.multipart import MultipartParser

        self.content = bytearray()
        self._form = Form()
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name = ""
        self._bytes = bytearray()
        self._is_over = False
        with _mapped():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._name_part,
                    "on_part_data": lambda data, start, end: self._take(data[start:end]),
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )

    def feed(self, data: bytes) -> None:
        """Raises `BadRequest`."""
        # What comes after the last boundary is nobody's.
        if data and not self._is_over:
            with _mapped():
                self._parser.write(data)

    def form(self) -> Form:
        """Once all is fed. Raises `BadRequest` for a form without its end, or without a file."""
        if not self._is_over:
            raise BadRequest("the form is cut off: its last boundary is missing")
        if self._form.filename is None:
            raise BadRequest(f"{FILE} is required, a file", param=FILE)
        return self._form

    def _begin(self) -> None:
        self._disposition = b""
        self._bytes = bytearray()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _name_part(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._disposition.decode("latin-1"))
        self._name = _text(options.get(b"name", b""))
        if not self._name:
            raise BadRequest("a part of the form has no name")
        if self._name in self._form.fields or (self._name == FILE and self._form.filename is not None):
            raise BadRequest(f"{self._name[:80]} is given twice", param=self._name[:80])
        if len(self._form.fields) == MAX_FIELDS:
            raise BadRequest(f"the form has more than {MAX_FIELDS} fields")
        if self._name == FILE:
            self._form.filename = _text(options.get(b"filename", b"")) or FILE

    def _take(self, data: bytes) -> None:
        if self._name == FILE:
            self.content += data
            return
        self._bytes += data
        if len(self._bytes) > MAX_FIELD:
            raise BadRequest(f"{self._name[:80]} has more than {MAX_FIELD} bytes", param=self._name[:80])

    def _end_part(self) -> None:
        if self._name != FILE:
            self._form.fields[self._name] = _text(bytes(self._bytes))

    def _end(self) -> None:
        self._is_over = True


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


@contextmanager
def _mapped() -> Iterator[None]:
    from python_multipart.exceptions import FormParserError

    try:
        yield
    except FormParserError as exc:
        raise BadRequest(f"the form cannot be read: {exc}") from exc
