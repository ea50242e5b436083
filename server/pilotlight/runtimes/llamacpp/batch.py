"""What goes into one decode step, in the arrays llama.cpp reads.
Knows the layout of `llama_batch` and nothing else."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np


class Batch:
    """The arrays of one `llama_batch`, filled through numpy: a
    ctypes store per field would cost 10 times more."""

    def __init__(self, lib: Any, largest: int) -> None:
        self._tokens = np.zeros(largest, np.int32)
        self._positions = np.zeros(largest, np.int32)
        self._rows = np.zeros(largest, np.int32)
        self._wants = np.zeros(largest, np.int8)
        self._ones = np.ones(largest, np.int32)
        address, size = self._rows.ctypes.data, self._rows.itemsize
        self._row_pointers = np.array([address + i * size for i in range(largest)], np.uintp)
        self.native = lib.llama_batch()
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._ones),
            ("seq_id", self._row_pointers),
            ("logits", self._wants),
        ):
            kind = dict(lib.llama_batch._fields_)[name]
            setattr(self.native, name, ctypes.cast(array.ctypes.data, kind))

    def __len__(self) -> int:
        """Tokens in it."""
        return int(self.native.n_tokens)

    def clear(self) -> None:
        self.native.n_tokens = 0

    def add(self, tokens: Sequence[int], *, position: int, row: int, wants_logits: bool) -> None:
        """Append tokens of one sequence; logits are computed for the last of them if wanted."""
        start = self.native.n_tokens
        end = start + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = range(position, position + len(tokens))
        self._rows[start:end] = row
        self._wants[start:end] = 0
        if wants_logits:
            self._wants[end - 1] = 1
        self.native.n_tokens = end
