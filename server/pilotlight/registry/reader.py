"""Takes numbers, bytes and texts off the beginning of a file, within limits. Knows no format's meaning."""

import stat
import struct
from pathlib import Path
from typing import Any, BinaryIO

MOST_HEADER_BYTES = 128 * 2**20
"""The largest real headers, with tokenizers of 260,000 words, have 16 MiB."""

BLOCK_BYTES = 2**18

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


LONGEST_MESSAGE = 500
"""Letters: what it is about may be anybody's, and as long as they like."""


class HeaderError(Exception):
    """This is no model that anybody should load; the message says why, with the numbers."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}...")


class TruncatedError(HeaderError):
    """The header goes on after the last byte there is. Of a file that is all; of a beginning, more helps."""


def opened(path: Path) -> BinaryIO:
    """The file, to read its header. Raises `OSError`, and `HeaderError` for what is none: to open a pipe that
    nobody writes to would never end."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # that a folder is none, the system says itself
        raise HeaderError("it is a pipe, a socket or a device, and no file")
    return path.open("rb")


class Reader:
    """Takes numbers and bytes off a file, block by block, up to the limit for headers."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._block = b""
        self._used = 0
        self._before = 0

    @property
    def position(self) -> int:
        """Bytes taken or skipped so far."""
        return self._before + self._used

    def number(self, kind: struct.Struct) -> Any:
        """The next scalar, of the Python type that its kind says."""
        if len(self._block) - self._used < kind.size:
            self._fill(kind.size)
        (value,) = kind.unpack_from(self._block, self._used)
        self._used += kind.size
        return value

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if len(self._block) - self._used < count:
            self._fill(count)
        self._used += count
        return self._block[self._used - count : self._used]

    def text(self, most: int, what: str) -> str:
        """A length and so many bytes of text."""
        length: int = self.number(U64)
        if not 0 < length <= most:
            raise HeaderError(f"{what} has {length} bytes; it has 1 to {most}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as exc:
            raise HeaderError(f"{what} is no text: {exc.reason}") from exc

    def skip(self, count: int) -> None:
        """Leave the next bytes out."""
        self._check(count)
        while count > len(self._block) - self._used:
            count -= len(self._block) - self._used
            self._used = len(self._block)
            self._fill(1)
        self._used += count

    def skip_texts(self, count: int) -> None:
        """Leave texts out, each a length and so many bytes. A loop of few steps: there may be a million."""
        unpack, used = U64.unpack_from, self._used
        for _ in range(count):
            if used + 8 > len(self._block):
                self._used = used
                self._fill(8)
                used = 0
            used += 8 + unpack(self._block, used)[0]
            if used > len(self._block):
                excess = used - len(self._block)
                self._used = len(self._block)
                self.skip(excess)
                used = self._used
        self._used = used

    def _check(self, count: int) -> None:
        if self.position + count > MOST_HEADER_BYTES:
            raise HeaderError(f"the header has more than {MOST_HEADER_BYTES} bytes")

    def _fill(self, count: int) -> None:
        """Have at least so many bytes in the block, its first one the next to be taken."""
        self._check(count)
        self._before += self._used
        rest = self._block[self._used :]
        more = self._source.read(max(BLOCK_BYTES, count - len(rest)))
        self._block, self._used = rest + more, 0
        if len(self._block) < count:
            raise TruncatedError(f"it has {self._before + len(self._block)} bytes, and its header goes on")
