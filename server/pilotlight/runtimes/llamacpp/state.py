"""A sequence's state taken out of a llama.cpp context: fit for one of another layout, and to be shortened.

`llama_state_seq_get_data` writes a magic number, the sequence's id, how many streams the memory has, and for
each stream how many cells follow: 0 for all but the sequence's own. A context with other streams refuses it.
So the cells are kept with room on both sides, for the numbers wanted by the context that restores them.

The cells themselves are a position and a sequence id for each, then keys and values layer by layer. This is
the format of llama.cpp's plain memory as of 2026, see `llama_kv_cache::state_write`. Nobody promises it: when
a model is loaded, a real state of it is asked (`SequenceState.is_plain`). Memory of any other kind or version
is never divided into streams, and what was saved of it is restored in whole.
"""

import math
import sys
from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

HEAD = 3
"""Numbers before the streams: the magic one, the sequence's id, how many streams."""

NUMBER = 4
"""Bytes of a number."""

MOST_STREAMS = 64
"""Streams there is room for: more sequences side by side can't be configured."""

FLAGS = 2
"""Which of the `_parts` says whether values are transposed, and how many layers there are."""

ITEM_BYTES = {0: 4, 1: 2, 30: 2}
"""Of a value that can lie feature by feature, by `ggml_type`: F32, F16 and BF16, which have no blocks."""

_FIRST_CELL = NUMBER * (HEAD + MOST_STREAMS)

Bytes = npt.NDArray[np.uint8]


class SequenceState:
    """The state of one sequence, between contexts."""

    def __init__(self, num_bytes: int, stream: int, num_streams: int) -> None:
        """Room for a state of so many bytes, of a sequence in stream number `stream`."""
        self._num_bytes = num_bytes - NUMBER * (HEAD + num_streams - 1)
        """Of its own stream: how many cells, and the cells."""
        self._buffer = np.empty(_FIRST_CELL + self._num_bytes + NUMBER * MOST_STREAMS, np.uint8)
        self._place = stream, num_streams

    def written(self) -> Bytes:
        """The bytes as the context writes them that it was taken from."""
        stream, num_streams = self._place
        start = _FIRST_CELL - NUMBER * (HEAD + stream)
        end = _FIRST_CELL + self._num_bytes + NUMBER * (num_streams - 1 - stream)
        return self._buffer[start:end]

    def wanted(self, stream: int, num_streams: int) -> Bytes:
        """The bytes as a context of so many streams wants them, for a sequence in that one."""
        if self._place != (stream, num_streams):
            magic = self.written()[:NUMBER].view(np.uint32)[0]
            self._place = stream, num_streams
            numbers = self.written()
            numbers[: NUMBER * (HEAD + stream)].view(np.uint32)[:] = [magic, 0, num_streams, *[0] * stream]
            numbers[numbers.size - NUMBER * (num_streams - 1 - stream) :] = 0
        return self.written()

    @property
    def num_tokens(self) -> int:
        """Of a state that `is_plain`."""
        return _number(self._cells, 0)

    @property
    def is_transposed(self) -> bool:
        """Values lie feature by feature, as without flash attention; of a state that `is_plain`."""
        *_, (flags, _) = islice(_parts(self._cells), FLAGS + 1)
        return bool(_number(flags, 0))

    def packed(self) -> Bytes:
        """All of it in one piece, for `unpacked`."""
        self.wanted(0, 1)
        self._buffer[: _FIRST_CELL - NUMBER * HEAD] = 0
        self._buffer[_FIRST_CELL + self._num_bytes :] = 0
        return self._buffer

    @classmethod
    def unpacked(cls, buffer: Bytes) -> "SequenceState | None":
        """Of what was packed, which from now on is the state's; None for what cannot be that."""
        num_bytes = buffer.size - _FIRST_CELL - NUMBER * MOST_STREAMS
        if buffer.dtype != np.uint8 or buffer.ndim != 1 or num_bytes < NUMBER:
            return None
        state = cls(num_bytes + NUMBER * HEAD, 0, 1)
        state._buffer = buffer
        return state

    def is_plain(self, num_tokens: int) -> bool:
        """It has the format that this file knows, and is of the first so many tokens of a sequence."""
        cells = self._cells
        if cells.size < NUMBER or _number(cells, 0) != num_tokens:
            return False
        try:
            parts = list(_parts(cells))
        except (ValueError, OverflowError):
            return False
        is_whole = sum(values.size for values, _ in parts) == cells.size
        return is_whole and np.array_equal(np.sort(_positions(parts[1][0])), np.arange(num_tokens))

    def first(self, num_tokens: int) -> "SequenceState":
        """The state of its first tokens, of a state that `is_plain`."""
        parts = list(_parts(self._cells))
        kept = np.flatnonzero(_positions(parts[1][0]) < num_tokens)
        shapes = [_shortened(values.shape, axis, kept.size) for values, axis in parts]
        shorter = self._like(sum(map(math.prod, shapes)))
        at = 0
        for (values, axis), shape in zip(parts, shapes, strict=True):
            start, at = at, at + math.prod(shape)
            place = shorter._cells[start:at].reshape(shape)
            if axis is None:
                place[:] = values
            else:
                # Any other mode than "raise" writes without a copy between.
                values.take(kept, axis, out=place, mode="clip")
        shorter._cells[:NUMBER].view(np.uint32)[0] = kept.size
        return shorter

    def turned(self) -> "SequenceState":
        """The state for a context that has its values the other way round, of a state that `is_plain`."""
        parts = [values for values, _ in _parts(self._cells)]
        flags = parts[FLAGS]
        num_layers = _number(flags, NUMBER)
        parts[FLAGS] = _numbers([1 - _number(flags, 0), num_layers])
        first = FLAGS + 1 + 2 * num_layers
        for i in range(first, len(parts), 2):
            turn = _by_token if self.is_transposed else _by_feature
            parts[i], parts[i + 1] = turn(parts[i], parts[i + 1])
        turned = self._like(self._num_bytes)
        np.concatenate([values.ravel() for values in parts], out=turned._cells)
        return turned

    def _like(self, num_bytes: int) -> "SequenceState":
        """Room for cells of so many bytes, with the same numbers before and behind them."""
        stream, num_streams = self._place
        other = SequenceState(num_bytes + NUMBER * (HEAD + num_streams - 1), stream, num_streams)
        ours, theirs = self.written(), other.written()
        head, tail = NUMBER * (HEAD + stream), NUMBER * (num_streams - 1 - stream)
        theirs[:head] = ours[:head]
        theirs[theirs.size - tail :] = ours[ours.size - tail :]
        return other

    @property
    def _cells(self) -> Bytes:
        return self._buffer[_FIRST_CELL : _FIRST_CELL + self._num_bytes]


def _positions(about: Bytes) -> npt.NDArray[np.int32]:
    """Of the cells, by what is said about them."""
    return about.reshape(-1, 3 * NUMBER)[:, :NUMBER].copy().view(np.int32).ravel()


def _parts(cells: Bytes) -> Iterator[tuple[Bytes, int | None]]:
    """The bytes one after another, in the shape they have, and on which axis there is one entry per token.

    None: on none. Raises `ValueError` where they cannot be what they should be.
    """
    count = _number(cells, 0)
    at = NUMBER

    def take(*shape: int) -> Bytes:
        nonlocal at
        start, at = at, at + int(np.prod(shape, dtype=object))
        return cells[start:at].reshape(shape)

    yield cells[:at], None
    yield take(count, 3 * NUMBER), 0  # Position, number of sequences, sequence.
    is_transposed, num_layers = _number(cells, at), _number(cells, at + NUMBER)
    yield take(2 * NUMBER), None
    for _ in range(num_layers):
        row_bytes = _number(cells, at + NUMBER, 8)
        yield take(NUMBER + 8), None  # Type, bytes of a row.
        yield take(count, row_bytes), 0
    for _ in range(num_layers if at < cells.size else 0):  # Some architectures keep no values.
        if is_transposed:
            item_bytes, num_features = _number(cells, at + NUMBER), _number(cells, at + 2 * NUMBER)
            yield take(3 * NUMBER), None
            yield take(num_features, count, item_bytes), 1
        else:
            row_bytes = _number(cells, at + NUMBER, 8)
            yield take(NUMBER + 8), None
            yield take(count, row_bytes), 0


def _shortened(shape: tuple[int, ...], axis: int | None, count: int) -> tuple[int, ...]:
    """With so many entries on that axis."""
    return shape if axis is None else (*shape[:axis], count, *shape[axis + 1 :])


def _by_token(head: Bytes, values: Bytes) -> tuple[Bytes, Bytes]:
    """Type and bytes of a row, then a row for each token; from those of values by feature."""
    num_features, _, item_bytes = values.shape
    row_bytes = np.array([num_features * item_bytes], np.uint64).view(np.uint8)
    return np.concatenate([head[:NUMBER], row_bytes]), values.swapaxes(0, 1)


def _by_feature(head: Bytes, values: Bytes) -> tuple[Bytes, Bytes]:
    """Type, bytes of a value and number of features, then a row for each feature; from those by token."""
    kind, (count, row_bytes) = _number(head, 0), values.shape
    items = values.reshape(count, -1, ITEM_BYTES[kind])
    return _numbers([kind, ITEM_BYTES[kind], row_bytes // ITEM_BYTES[kind]]), items.swapaxes(0, 1)


def _numbers(numbers: list[int]) -> Bytes:
    return np.array(numbers, np.uint32).view(np.uint8)


def _number(cells: Bytes, at: int, size: int = NUMBER) -> int:
    return int.from_bytes(cells[at : at + size].tobytes(), sys.byteorder)
