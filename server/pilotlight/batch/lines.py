"""The requests of a batch: JSON lines in an uploaded file, checked as a whole before the first one runs.

The file is a stranger's: lines are read one at a time and bounded, and what is wrong is told by its line.
What a request asks for is checked when it runs, as one over HTTP is.
"""

import codecs
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from pydantic_core import from_json

from pilotlight.batch.records import Fault

MAX_LINES = 50_000
MAX_FAULTS = 100
MAX_CUSTOM_ID = 512


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request. `body` is the JSON that the endpoint would be sent."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class Bad(Exception):
    """A line that is no request of this batch."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(slots=True)
class Scan:
    """What a file holds: where each request begins, the line that first asks for its model, the models with
    these lines, and all that is wrong with it."""

    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    first_lines: "array[int]" = field(default_factory=lambda: array("Q"))
    models: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def scan(path: Path, endpoint: str, max_bytes: int) -> Scan:
    """Blocking. Lines may have `max_bytes`. Raises `OSError` if the file cannot be read."""
    found = Scan()
    seen: dict[str, int] = {}
    for number, offset, raw in _raw_lines(path, max_bytes):
        try:
            line = parse(_whole(raw, max_bytes), endpoint)
            if (first := seen.setdefault(line.custom_id, number)) != number:
                raise Bad("duplicate_custom_id", f"line {first} has the same custom_id", "custom_id")
            found.first_lines.append(found.models.setdefault(asked_model(line), number))
            found.offsets.append(offset)
        except Bad as bad:
            found.faults.append(Fault(bad.code, str(bad), number, bad.param))
        if len(found.offsets) > MAX_LINES:
            found.faults.append(Fault("too_many_requests", f"there are more than {MAX_LINES} requests"))
        if len(found.faults) >= MAX_FAULTS or len(found.offsets) > MAX_LINES:
            break
    if not found.offsets and not found.faults:
        found.faults.append(Fault("empty_file", "the file has no requests"))
    return found


def parse(raw: bytes, endpoint: str) -> Line:
    """Raises `Bad`."""
    try:
        line = _decoder.decode(raw)
    except msgspec.ValidationError as exc:
        raise Bad("invalid_request", f"the line is no request: {exc}") from None
    except (ValueError, RecursionError) as exc:
        raise Bad("invalid_json_line", f"the line is not valid JSON: {exc}") from None
    if not 0 < len(line.custom_id) <= MAX_CUSTOM_ID:
        raise Bad("invalid_custom_id", f"custom_id must have 1 to {MAX_CUSTOM_ID} characters", "custom_id")
    if line.method != "POST":
        raise Bad("invalid_method", "method must be 'POST'", "method")
    if line.url != endpoint:
        raise Bad("mismatched_endpoint", f"url must be {endpoint!r}, the endpoint of the batch", "url")
    return line


def asked_model(line: Line) -> str:
    """Whom the body asks. Raises `Bad`."""
    try:
        # The decoder passes over the body without a look at its text.
        body = from_json(bytes(line.body), allow_inf_nan=False)
    except ValueError as exc:
        raise Bad("invalid_json_line", f"the body is not valid JSON: {exc}", "body") from None
    if not isinstance(body, dict):
        raise Bad("invalid_request", "body must be an object", "body")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Bad("missing_required_parameter", "body.model is required, a string", "body.model")
    return model


class Input:
    """The requests of a checked file, by number from 0. Blocking; one reader at a time."""

    def __init__(self, path: Path, found: Scan, endpoint: str) -> None:
        self._file: BinaryIO = path.open("rb")
        self._offsets = found.offsets
        self._first_lines = found.first_lines
        self._endpoint = endpoint

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> Line:
        """Raises `Bad` if somebody changed the file."""
        self._file.seek(self._offsets[number])
        return parse(self._file.readline(), self._endpoint)

    def by_model(self, numbers: Iterable[int]) -> list[int]:
        """Those of one model after those of another, as the file first asks for them. Reads nothing."""
        return sorted(numbers, key=self._first_lines.__getitem__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


_decoder = msgspec.json.Decoder(Line)


def _raw_lines(path: Path, max_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Line number, offset and content of each line that is not blank; of one too long only its begin."""
    with path.open("rb") as file:
        offset = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        file.seek(offset)
        number = 0
        while raw := file.readline(max_bytes + 1):
            number += 1
            if not raw.isspace():
                yield number, offset, raw
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(max_bytes)
            offset = file.tell()


def _whole(raw: bytes, max_bytes: int) -> bytes:
    if len(raw) > max_bytes:
        raise Bad("line_too_long", f"the line has more than {max_bytes} bytes, which is server.body_limit")
    return raw
