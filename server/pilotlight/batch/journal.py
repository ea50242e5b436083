"""The answers to a batch's lines: two files of JSON lines that are final from their first line on.

They are what is known of a batch's progress, too: a line is answered if it is in one of them. What a crash
left of a last line is cut off, so that line is answered again, and every line has exactly one answer.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import msgspec

from pilotlight.batch.records import Counts, Usage
from pilotlight.jsonl import lined
from pilotlight.registry import private_file

_PIECE = 2**20


class Response(msgspec.Struct, frozen=True):
    """What the endpoint answered. `body` is JSON without line breaks."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class NotRun(msgspec.Struct, frozen=True):
    """Why a line has no response."""

    code: str
    message: str


class Entry(msgspec.Struct, frozen=True):
    """The answer to one line, as OpenAI writes it."""

    id: str
    custom_id: str
    response: Response | None = None
    error: NotRun | None = None

    @property
    def is_success(self) -> bool:
        return self.response is not None and self.response.status_code < 300


class Journal:
    """Owns the two files of one batch while it runs; opening it reads what is in them, and writes it anew.

    Blocking. Single writer: nobody else may have them open.
    """

    def __init__(self, batch_id: str, num_lines: int, output: Path, errors: Path) -> None:
        self._prefix = f"batch_req_{batch_id.removeprefix('batch_')}-"
        self._is_answered = bytearray(num_lines)
        self._completed = self._failed = 0
        self._input = self._cached = self._generated = 0
        with ExitStack() as opened:
            self._output = opened.enter_context(closing(_Lines(output, self._take)))
            self._errors = opened.enter_context(closing(_Lines(errors, self._take)))
            opened.pop_all()

    @property
    def pending(self) -> list[int]:
        """The lines without an answer, in order."""
        return [number for number, is_answered in enumerate(self._is_answered) if not is_answered]

    @property
    def counts(self) -> Counts:
        """Lines that were never run are no failures."""
        return Counts(len(self._is_answered), self._completed, self._failed)

    @property
    def usage(self) -> Usage:
        return Usage(self._input, self._cached, self._generated)

    def entry_id(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def add(self, entry: Entry) -> None:
        """Write an answer. Raises `OSError`; nothing of it is in the file then."""
        content = lined(msgspec.json.encode(entry))
        assert b"\n" not in content, "an answer is one line"
        (self._output if entry.is_success else self._errors).append(content + b"\n")
        is_new = self._take(content)
        assert is_new, f"{entry.id} was answered before"

    def close(self) -> None:
        for lines in (self._output, self._errors):
            lines.close()

    def finish(self) -> None:
        """Make both files last; they do not grow any more. Raises `OSError`; after that only a journal that
        is opened again can be believed."""
        for lines in (self._output, self._errors):
            lines.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, content: bytes) -> bool:
        """Count an answer; False for what is none, and for a second one to the same line."""
        try:
            kept = _decoder.decode(content)
            number = int(kept.id.removeprefix(self._prefix))
            is_new = kept.id == self.entry_id(abs(number)) and not self._is_answered[number]
        except (ValueError, IndexError, RecursionError):
            return False
        if is_new:
            self._is_answered[number] = True
            if kept.response is not None:
                self._count(kept.response)
        return is_new

    def _count(self, response: "_KeptResponse") -> None:
        if response.status_code >= 300:
            self._failed += 1
            return
        self._completed += 1
        if (usage := response.body.usage) is not None:
            self._input += usage.prompt_tokens
            self._generated += usage.completion_tokens
            self._cached += usage.prompt_tokens_details.cached_tokens


class _Lines:
    """A file that only grows, by whole lines."""

    def __init__(self, path: Path, take: Callable[[bytes], bool]) -> None:
        self._size = _size_of_whole(path, take) if path.exists() else 0
        if self._size:
            _renew(path, self._size)
        # Without the last one, Windows ends lines by two bytes.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o600)
        os.ftruncate(self._descriptor, self._size)

    def append(self, line: bytes) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _size_of_whole(path: Path, take: Callable[[bytes], bool]) -> int:
    """Of its lines, up to one that is torn or not taken."""
    size = 0
    with path.open("rb") as file:
        for line in file:
            if not (line.endswith(b"\n") and take(line)):
                break
            size += len(line)
    return size


def _renew(path: Path, size: int) -> None:
    """Put what counts of it into a new file, where the disk has room for both: that some of the old one did
    not reach the disk Linux tells only once, maybe to the daemon before this one, and then says that all is
    well."""
    if shutil.disk_usage(path.parent).free <= 2 * size:
        return
    try:
        private_file.write_pieces(path, _pieces(path, size), is_lasting=True)
    except OSError as exc:
        if exc.errno not in private_file.FULL:
            raise


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while size and (piece := file.read(min(size, _PIECE))):
            size -= len(piece)
            yield piece


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _KeptUsage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details = msgspec.field(default_factory=_Details)


class _KeptBody(msgspec.Struct):
    usage: _KeptUsage | None = None


class _KeptResponse(msgspec.Struct):
    status_code: int
    body: _KeptBody


class _Kept(msgspec.Struct):
    """Of an answer, what is counted."""

    id: str
    response: _KeptResponse | None


_decoder = msgspec.json.Decoder(_Kept)
