"""Keys and values of several sequences in one block of memory that is as large as what was written to it."""

import mmap
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = mmap.PAGESIZE


class Cells:
    """One tensor of rows; `array` is all of it, zero where nothing was written.

    The system gives memory page by page as it is written, and takes back the pages of what is cleared or cut:
    room for every sequence at its longest costs nothing until it is used, and nothing afterwards.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        _, self._num_heads, tokens, _ = shape
        self._bytes_per_row = size // shape[0]
        self._bytes_per_head = self._bytes_per_row // self._num_heads
        self._bytes_per_token = self._bytes_per_head // tokens
        self.tokens_per_page = max(1, PAGE // self._bytes_per_token)
        """Of one head."""
        self._memory: mmap.mmap | None = None
        self.array: npt.NDArray[Any]
        if hasattr(mmap, "MAP_PRIVATE"):
            # Private: shared memory would keep what is cleared.
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                # A row's heads are far apart: the first token would take a huge page for each of them.
                with suppress(OSError):  # a kernel that has no huge pages
                    self._memory.madvise(mmap.MADV_NOHUGEPAGE)
            self.array = np.frombuffer(self._memory, kind).reshape(shape)
        else:
            # Windows, which gives these pages as they are written, too, but takes none back.
            self.array = np.zeros(shape, kind)

    def clear(self, row: int) -> None:
        """Nobody needs what stands in the row; a part of a page at either end may stay."""
        self._give_back(row * self._bytes_per_row, (row + 1) * self._bytes_per_row)

    def cut(self, row: int, num_tokens: int, held: int) -> None:
        """Nobody needs more than the first of the tokens that the row holds; parts of pages may stay."""
        first = num_tokens * self._bytes_per_token
        end = min(held * self._bytes_per_token + PAGE, self._bytes_per_head)
        for head in range(self._num_heads):
            start = row * self._bytes_per_row + head * self._bytes_per_head
            self._give_back(start + first, start + end)

    def _give_back(self, start: int, end: int) -> None:
        """The pages that lie between these bytes."""
        first, end = -(-start // PAGE) * PAGE, end // PAGE * PAGE
        if self._memory is not None and end > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, end - first)
