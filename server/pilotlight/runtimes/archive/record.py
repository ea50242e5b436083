"""One file of an archive: the tokens of a conversation, and what was computed of them.

    magic, version, bytes of the header, SHA-256 of the header
    the header: msgpack, see `Header`
    the arrays it names, one after another
    SHA-256 of the header's and of the arrays

A file gets its name when it is whole. What is read is believed only if its sums are right, and taken only
from a file of our own that nobody else may read or write. Knows no model: whether arrays are a state of one
its `Decoder` says.
"""

import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from pilotlight.runtimes.archive.folder import UNFINISHED

VERSION = 2
"""Of the first one, texts may have tokens that stand for nothing in them."""

MAGIC = b"pilot-kv"

_LEAD = struct.Struct("<8sII32s")

DIGEST = hashlib.sha256
"""Most processors have instructions for it: 1.5 GiB/s where blake2b has 0.6."""

DIGEST_BYTES = 32

MOST_HEADER_BYTES = 64 * 2**20

PIECE_BYTES = 4 * 2**20
"""Read and written at once: between two of them it may turn out that there is no time left."""

DTYPES = ("uint8", "float16", "float32")

Arrays = Sequence[npt.NDArray[Any]]


class RecordError(Exception):
    """The file is damaged, or none of ours, or of another version."""


class Form(msgspec.Struct, frozen=True, array_like=True):
    """What an array looks like."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> "Form":
        return cls(array.dtype.name, array.shape)

    @property
    def num_bytes(self) -> int:
        """Raises `RecordError` for what no array looks like."""
        if self.dtype not in DTYPES or not self.shape or min(self.shape) < 1:
            raise RecordError(f"an array of {self.dtype} and shape {self.shape}")
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Header(msgspec.Struct, frozen=True, array_like=True):
    """All but the arrays. Tokens are 32-bit integers, little-endian."""

    key: bytes
    """Of the model and the settings that computed it."""
    tokens: bytes
    """Which are computed."""
    forms: tuple[Form, ...]
    text: str
    """Of the conversation as its client saw it, up to the answer's end; "" if there was none."""
    text_tokens: bytes
    """What that was made of."""


_headers = msgspec.msgpack.Decoder(Header)


def num_bytes(header: Header) -> int:
    """About how large a file will be."""
    return sum(form.num_bytes for form in header.forms) + len(header.text) + 2 * len(header.tokens) + 1024


def write(path: Path, header: Header, arrays: Arrays, is_late: Callable[[], bool]) -> bool:
    """Write a file of these arrays, which have the header's forms. Raises `OSError`.

    False, and there is none, if it `is_late` before the end.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)  # mkstemp makes it 0600
    is_in_place = False
    try:
        with os.fdopen(descriptor, "wb") as file:
            is_whole = _write(file, msgspec.msgpack.encode(header), arrays, is_late)
        if is_whole:
            os.replace(temporary, path)
            is_in_place = True
    finally:
        if not is_in_place:
            os.unlink(temporary)
    return is_in_place


def _write(file: BinaryIO, header: bytes, arrays: Arrays, is_late: Callable[[], bool]) -> bool:
    digest = DIGEST(header)
    file.write(_LEAD.pack(MAGIC, VERSION, len(header), digest.digest()))
    file.write(header)
    whole = DIGEST(digest.digest())
    for piece in _pieces(arrays):
        if is_late():
            return False
        whole.update(piece)
        file.write(piece)
    file.write(whole.digest())
    return True


def _pieces(arrays: Arrays) -> Iterator[memoryview]:
    for array in arrays:
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]


def read_header(path: Path) -> Header:
    """What a file says of itself. Raises `RecordError` and `OSError`."""
    with _open(path) as file:
        return _read_header(file)[0]


def read(path: Path, header: Header) -> Arrays:
    """The arrays of a file that has this header. Raises `RecordError`, `OSError` and `MemoryError`."""
    with _open(path) as file:
        found, digest = _read_header(file)
        if found != header:
            raise RecordError("another file has its name")
        content = np.empty(sum(form.num_bytes for form in header.forms), np.uint8)
        whole = DIGEST(digest)
        for piece in _pieces([content]):
            if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]  # a buffered file has it
                raise RecordError("it ends too early")
            whole.update(piece)
        if file.read(DIGEST_BYTES) != whole.digest():
            raise RecordError("its content is damaged")
    return list(_split(content, header.forms))


def _split(content: npt.NDArray[np.uint8], forms: Sequence[Form]) -> Iterator[npt.NDArray[Any]]:
    start = 0
    for form in forms:
        yield content[start : start + form.num_bytes].view(form.dtype).reshape(form.shape)
        start += form.num_bytes


def _open(path: Path) -> BinaryIO:
    """A plain file that belongs to us alone. Raises `RecordError` and `OSError`."""
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb")
    found = os.fstat(file.fileno())
    is_private = os.name != "posix" or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    if stat.S_ISREG(found.st_mode) and is_private:
        return file
    file.close()
    raise RecordError("it is no file of ours alone")


def _read_header(file: BinaryIO) -> tuple[Header, bytes]:
    """And its sum."""
    lead = file.read(_LEAD.size)
    if len(lead) < _LEAD.size:
        raise RecordError("it is too short")
    magic, version, length, digest = _LEAD.unpack(lead)
    if (magic, version) != (MAGIC, VERSION):
        raise RecordError(f"it begins with {magic!r}, version {version}")
    size = os.fstat(file.fileno()).st_size
    if length > min(MOST_HEADER_BYTES, size):
        raise RecordError(f"its header has {length} bytes")
    raw = file.read(length)
    if DIGEST(raw).digest() != digest:
        raise RecordError("its header is damaged")
    try:
        header = _headers.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RecordError("its header cannot be read") from exc
    content = sum(form.num_bytes for form in header.forms)
    if size != _LEAD.size + length + content + DIGEST_BYTES:
        raise RecordError(f"it has {size} bytes, and arrays of {content}")
    return header, digest
