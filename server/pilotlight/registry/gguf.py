"""Reads what a GGUF file says of itself: metadata and the list of tensors, never the weights.

The file may be anybody's: every count, length, offset and sum is held against a limit before anything is
taken for it, and what is no GGUF is a `HeaderError`. Long arrays (a tokenizer's words) are walked over and
not kept. It reads through a file object, not a mapping: a file cut short under a mapping kills the process.
"""

import re
import struct
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from pilotlight.registry.reader import U32, U64, HeaderError, Reader, opened

MOST_KEYS = 4096
MOST_TENSORS = 65536
MOST_ELEMENTS = 2**22
MOST_SHARDS = 256

KEY_BYTES = 65535
NAME_BYTES = 63
"""What ggml takes (`GGML_MAX_NAME`)."""

KEPT_TEXT_BYTES = 2**18
"""A longer text is not kept; the longest real ones are chat templates."""

KEPT_ELEMENTS = 4096
"""Of arrays of numbers: those that have one for each layer."""

MOST_KEPT = 2**20
"""Letters and numbers of all values together; real headers have a tenth of that."""

MOST_BYTES = 2**62
"""Of weights, and of any one size: what is beyond overflows somewhere in native code."""

DEFAULT_ALIGNMENT = 32

STRING, ARRAY = 8, 9

SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""By the number of a value's type in gguf.h (`gguf_type`)."""

KINDS = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}
"""By the number of a tensor's type in ggml.h (`ggml_type`): its name, weights per block, bytes per block."""

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class Skipped(Struct, frozen=True):
    """A value that was not kept: `count` elements (or letters) in `num_bytes` bytes."""

    count: int
    num_bytes: int


Value = str | int | float | bool | tuple[int | float | bool, ...] | Skipped


class Tensor(Struct, frozen=True):
    """One tensor; `shape` begins with the length of a row, `offset` counts from the first weight."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


class Header(Struct, frozen=True):
    """What one file says; of a model in shards, the tensors are those of all, the rest is the first one's."""

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_start: int
    """Where the weights begin, in bytes."""

    @property
    def bytes_weights(self) -> int:
        """Of all tensors, without what stands between them."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    @property
    def num_weights(self) -> int:
        """Of all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def bytes_file(self) -> int:
        """The least a file with this header can have."""
        return self.data_start + max((one.offset + one.num_bytes for one in self.tensors), default=0)

    def check_size(self, num_bytes: int) -> None:
        """Raises `HeaderError` if a file of that size cannot hold the weights."""
        if num_bytes < self.bytes_file:
            raise HeaderError(f"the file has {num_bytes} bytes, and its tensors end at {self.bytes_file}")

    def text(self, key: str) -> str | None:
        """The value of that key, None if there is none or it is no text."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """The value of that key, None if there is none or it is no count."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def count(self, key: str) -> int:
        """How many elements the array of that key has, 0 if there is none."""
        value = self.metadata.get(key)
        if isinstance(value, Skipped):
            return value.count
        return len(value) if isinstance(value, tuple) else 0


def read_header(source: BinaryIO) -> Header:
    """The header of one file, or of the beginning of one. Raises `HeaderError` and `OSError`.

    Whether the weights are there is not looked at: see `Header.check_size`.
    """
    reader = Reader(source)
    num_tensors, num_keys = _read_counts(reader)
    metadata: dict[str, Value] = {}
    num_kept = 0
    for _ in range(num_keys):
        key = reader.text(KEY_BYTES, "a key")
        if key in metadata:
            raise HeaderError(f"the key {key!r} comes twice")
        metadata[key] = _read_value(reader, key)
        num_kept += _num_kept(metadata[key])
        if num_kept > MOST_KEPT:
            raise HeaderError(f"more than {MOST_KEPT} letters and numbers of metadata")
    tensors = tuple(_read_tensor(reader) for _ in range(num_tensors))
    alignment = _alignment(metadata)
    _check_tensors(tensors, alignment)
    start = -(-reader.position // alignment) * alignment if tensors else reader.position
    return Header(metadata, tensors, start)


def read_model(path: Path) -> Header:
    """The header of a file, complete with its weights; of the first of several shards, that of all together.

    Raises `HeaderError`, which names the file, and `OSError`.
    """
    return read_shards(path, _read_file(path))


def read_shards(path: Path, first: Header) -> Header:
    """The header with the tensors of the file's other shards, if it has any. Raises like `read_model`."""
    count = first.number("split.count") or 1
    if count == 1:
        return first
    name = SHARD.fullmatch(path.name)
    if not name or int(name["number"]) != 1 or int(name["count"]) != count or count > MOST_SHARDS:
        raise HeaderError(
            f"{path.name} is one of {count} shards; the first is named NAME-00001-of-{count:05}.gguf"
        )
    others = [
        path.with_name(f"{name['stem']}-{number:05}-of-{count:05}.gguf") for number in range(2, count + 1)
    ]
    missing = [other.name for other in others if not other.is_file()]
    if missing:
        raise HeaderError(f"{path.name} is one of {count} shards, and {missing[0]} is not there")
    tensors = list(first.tensors)
    for other in others:
        tensors += _read_file(other).tensors
        if len(tensors) > MOST_TENSORS:
            raise HeaderError(f"{path.name} and its other shards have more than {MOST_TENSORS} tensors")
    return Header(first.metadata, tuple(tensors), first.data_start)


def _read_file(path: Path) -> Header:
    try:
        with opened(path) as file:
            header = read_header(file)
            header.check_size(path.stat().st_size)
    except HeaderError as exc:
        raise type(exc)(f"{path.name}: {exc}") from exc
    return header


def _read_counts(reader: Reader) -> tuple[int, int]:
    """Of tensors and of keys, from the first bytes."""
    if (magic := reader.take(4)) != b"GGUF":
        raise HeaderError(f"not a GGUF file: it starts with {magic!r}")
    version = reader.number(U32)
    if version not in (2, 3):
        is_big = version and not version & 0xFFFF
        raise HeaderError("its numbers are big-endian" if is_big else f"GGUF version {version} is not 2 or 3")
    num_tensors, num_keys = reader.number(U64), reader.number(U64)
    if num_tensors > MOST_TENSORS:
        raise HeaderError(f"{num_tensors} tensors, more than {MOST_TENSORS}")
    if num_keys > MOST_KEYS:
        raise HeaderError(f"{num_keys} keys, more than {MOST_KEYS}")
    return num_tensors, num_keys


def _num_kept(value: Value) -> int:
    return len(value) if isinstance(value, str | tuple) else 1


def _read_value(reader: Reader, key: str) -> Value:
    kind = reader.number(U32)
    if kind == STRING:
        return _read_text(reader)
    if kind == ARRAY:
        return _read_array(reader, key)
    return _read_scalar(reader, kind, key)


def _read_text(reader: Reader) -> str | Skipped:
    length = reader.number(U64)
    if length > KEPT_TEXT_BYTES:
        reader.skip(length)
        return Skipped(length, length)
    return reader.take(length).decode(errors="replace")


def _read_scalar(reader: Reader, kind: int, key: str) -> int | float | bool:
    if kind not in SCALARS:
        raise HeaderError(f"the value of {key!r} has type {kind}, which nobody knows")
    value: int | float | bool = reader.number(SCALARS[kind])
    return value


def _read_array(reader: Reader, key: str) -> Value:
    kind, count = reader.number(U32), reader.number(U64)
    if count > MOST_ELEMENTS:
        raise HeaderError(f"{key!r} has {count} elements, more than {MOST_ELEMENTS}")
    start = reader.position
    if kind == STRING:
        reader.skip_texts(count)
    elif kind not in SCALARS:
        what = "arrays" if kind == ARRAY else f"type {kind}"
        raise HeaderError(f"{key!r} is an array of {what}, which GGUF does not have")
    elif count <= KEPT_ELEMENTS:
        return tuple(reader.number(SCALARS[kind]) for _ in range(count))
    else:
        reader.skip(count * SCALARS[kind].size)
    return Skipped(count, reader.position - start)


def _read_tensor(reader: Reader) -> Tensor:
    name = reader.text(NAME_BYTES, "a tensor's name")
    num_dimensions = reader.number(U32)
    if not 1 <= num_dimensions <= 4:
        raise HeaderError(f"tensor {name!r} has {num_dimensions} dimensions")
    shape = tuple(reader.number(U64) for _ in range(num_dimensions))
    number, offset = reader.number(U32), reader.number(U64)
    if number not in KINDS:
        raise HeaderError(f"tensor {name!r} has type {number}, which nobody knows")
    kind, block, block_bytes = KINDS[number]
    num_weights = prod(shape)
    if not 0 < num_weights < MOST_BYTES or offset >= MOST_BYTES:
        raise HeaderError(f"tensor {name!r} has {num_weights} weights at {offset}")
    if shape[0] % block:
        raise HeaderError(f"tensor {name!r} has rows of {shape[0]}, and {kind} comes in blocks of {block}")
    return Tensor(name, kind, shape, offset, num_weights // block * block_bytes)


def _alignment(metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or not 1 <= value <= 2**20 or value & (value - 1):
        raise HeaderError(f"general.alignment is {value!r}, which is no power of two up to {2**20}")
    return value


def _check_tensors(tensors: tuple[Tensor, ...], alignment: int) -> None:
    """Each stands somewhere of its own."""
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise HeaderError("two tensors have the same name")
    for tensor in tensors:
        if tensor.offset % alignment:
            raise HeaderError(f"tensor {tensor.name!r} at {tensor.offset} is not aligned to {alignment}")
    for one, other in pairwise(sorted(tensors, key=lambda tensor: tensor.offset)):
        if one.offset + one.num_bytes > other.offset:
            raise HeaderError(f"tensors {one.name!r} and {other.name!r} overlap at {other.offset}")
    if sum(tensor.num_bytes for tensor in tensors) >= MOST_BYTES:
        raise HeaderError("the tensors have more bytes than any file")
