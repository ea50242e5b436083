"""Keys and values of one layer for several sequences, as the models of mlx-lm want their caches.

mlx-lm's own caches push sequences of different lengths to the right end of a block, which is made anew
whenever one comes or goes. Here each row begins with its first token, and stays when others come or go.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from pilotlight.runtimes.kv_types import KV_GROUP

STEP = 256
"""Tokens by which rows grow: the block is made anew each time."""


class Span:
    """Which tokens are being computed. All layers share one."""

    def __init__(self) -> None:
        self.move(0, [0], 1)

    def move(self, first: int, starts: Sequence[int], count: int) -> None:
        """To `count` tokens for each row from `first` on; each holds as many before as `starts` says."""
        self.first = first
        self.end = first + len(starts)
        self.starts = starts
        self.count = count
        self.longest = max(starts) + count
        """Tokens of the longest row afterwards."""
        self.is_even = min(starts) == max(starts)
        """All rows hold the same number."""
        self.offset: Any = starts[0] if len(starts) == 1 else mx.array(list(starts))
        """The first position: of the row, or of each."""


class Cells:
    """One layer's rows; as long as the longest of them needs, and nothing while nothing is held."""

    def __init__(self, span: Span, window: int | None) -> None:
        """`window` is how many tokens the layer looks back, None for all."""
        self._span = span
        self._window = window
        self.arrays: tuple[Any, ...] = ()
        """Keys and values: [row, head, token, feature]."""

    # --- what a model asks ---

    @property
    def offset(self) -> Any:
        return self._span.offset

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """Write what was computed; everything that the rows hold now."""
        self._append((keys, values))
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[Any, Any]:
        """The same again: some models have layers that look at what another wrote."""
        keys, values = self._held()
        return keys, values

    def make_mask(self, count: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """Which tokens each one sees: itself and those before it in its row, within the window."""
        span, window = self._span, self._window or window_size
        is_whole = window is None or span.longest <= window
        if span.is_even and is_whole and not return_array:
            return None if count == 1 else "causal"
        looking = mx.array(list(span.starts))[:, None, None, None] + mx.arange(count)[:, None]
        seen = mx.arange(span.longest)
        mask = seen <= looking
        return mask if window is None or is_whole else mask & (seen > looking - window)

    # --- what the memory asks ---

    @property
    def num_rows(self) -> int:
        """That there is room for."""
        return int(self.arrays[0].shape[0]) if self.arrays else 0

    @property
    def forms(self) -> list[tuple[int, int, Any]]:
        """Heads, features and type of keys and of values, while anything is held."""
        return [(array.shape[1], array.shape[3], array.dtype) for array in self.arrays]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """The first tokens of one row also stand in another."""
        self._fit(target + 1, num_tokens, like=self.arrays)
        for array in self.arrays:
            array[target : target + 1, :, :num_tokens] = array[source : source + 1, :, :num_tokens]

    def save(self, row: int, num_tokens: int) -> tuple[Any, ...]:
        """A copy of a row's first tokens."""
        return tuple(mx.contiguous(array[row : row + 1, :, :num_tokens]) for array in self.arrays)

    def restore(self, row: int, saved: tuple[Any, ...], num_tokens: int) -> None:
        """Fill a row with the first of the saved tokens."""
        self._fit(row + 1, num_tokens, like=saved)
        for array, values in zip(self.arrays, saved, strict=True):
            array[row : row + 1, :, :num_tokens] = values[:, :, :num_tokens]

    def shrink(self, num_rows: int) -> None:
        """Only so many are needed. Far fewer than there are: others would come back to copying all again."""
        if not num_rows:
            self.arrays = ()
        elif 4 * num_rows <= self.num_rows:
            self.arrays = tuple(mx.contiguous(array[:num_rows]) for array in self.arrays)

    def _append(self, computed: tuple[Any, ...]) -> None:
        """Write what was computed to the rows."""
        span = self._span
        self._fit(span.end, span.longest, like=computed)
        for array, new in zip(self.arrays, computed, strict=True):
            self._write(array, new)

    def _held(self) -> list[Any]:
        """What the rows that are computed hold now, of each array."""
        span = self._span
        return [array[span.first : span.end, :, : span.longest] for array in self.arrays]

    def _fit(self, num_rows: int, num_tokens: int, like: tuple[Any, ...]) -> None:
        """Make room for so many rows, by doubling, and tokens, by steps."""
        rows, tokens = (self.arrays[0].shape[0], self.arrays[0].shape[2]) if self.arrays else (0, 0)
        if num_rows <= rows and num_tokens <= tokens:
            return
        num_rows = max(rows, 1 << (num_rows - 1).bit_length())
        num_tokens = max(tokens, -(-num_tokens // STEP) * STEP)
        larger = tuple(
            mx.zeros((num_rows, one.shape[1], num_tokens, one.shape[3]), one.dtype) for one in like
        )
        for array, old in zip(larger, self.arrays, strict=False):
            array[:rows, :, :tokens] = old
        self.arrays = larger

    def _write(self, array: Any, new: Any) -> None:
        """In place, as nothing else holds the array."""
        span = self._span
        if span.end - span.first == 1:
            start = span.starts[0]
            array[span.first : span.end, :, start : start + span.count] = new
        else:
            rows = mx.arange(span.first, span.end)[:, None]
            positions = span.offset[:, None] + mx.arange(span.count)
            array[rows, :, positions] = new.transpose(0, 2, 1, 3)


class QuantizedCells(Cells):
    """The same in 4 or 8 bits: integers, scales and offsets of keys, then of values.

    mlx-lm's attention looks for `bits`, and reads such cells as they are.
    """

    group_size = KV_GROUP

    def __init__(self, span: Span, window: int | None, bits: int) -> None:
        super().__init__(span, window)
        self.bits = bits

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        quantized = [mx.quantize(one, group_size=KV_GROUP, bits=self.bits) for one in (keys, values)]
        self._append((*quantized[0], *quantized[1]))
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[Any, Any]:
        held = self._held()
        return tuple(held[:3]), tuple(held[3:])
