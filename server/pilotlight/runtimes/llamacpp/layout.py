"""How the memory of a llama.cpp context is divided among sequences. Pure arithmetic.

Cells of its own for each sequence are fastest: attention looks at nobody else's. But each gets as many as the
longest one needs, so there is one row while one sequence runs alone, and rows for everyone who may come once
there are two. Where cells for all are more than the context allows, the sequences share one pool.
"""

from collections.abc import Sequence

from msgspec import Struct

UNIT = 256
"""llama.cpp makes cells by multiples of so many."""

SHORT = 512
SHORT_ALONE = 256
"""Cells of each of several sequences, and of one alone, for which flash attention is best on CPUs: LOG.md."""


class Layout(Struct, frozen=True):
    """Memory for `num_rows` sequences, with `num_cells` for each of them, or in all if `is_shared`."""

    num_rows: int
    num_cells: int
    is_shared: bool

    @property
    def num_cells_in_all(self) -> int:
        """Tokens that the context has memory for."""
        return self.num_cells if self.is_shared else self.num_rows * self.num_cells

    @property
    def suits_flash(self) -> bool:
        """Nobody has more than few cells to look at."""
        return not self.is_shared and self.num_cells <= (SHORT if self.num_rows > 1 else SHORT_ALONE)

    def stream(self, row: int) -> tuple[int, int]:
        """Which of the memory's streams, parts that know nothing of each other, is the row's; how many."""
        return (0, 1) if self.is_shared else (row, self.num_rows)

    def holds(self, lengths: Sequence[int]) -> bool:
        """Sequences of these lengths have room, in the first rows."""
        used = sum(lengths) if self.is_shared else max(lengths, default=0)
        return len(lengths) <= self.num_rows and used <= self.num_cells


def choose(lengths: Sequence[int], num_rows: int, context: int, *, is_divisible: bool) -> Layout | None:
    """The best layout of at most `context` tokens for sequences of these lengths; None if there is none.

    For several, best is one that has cells of its own for everyone who may come, then one that has them for
    these.
    """
    longest = max(lengths, default=0)
    for rows in (num_rows, len(lengths)) if len(lengths) > 1 else (1,):
        most = context // rows // UNIT * UNIT
        if is_divisible and most > 0 and longest <= most:
            return Layout(rows, min(most, _doubled(longest)), is_shared=False)
    if sum(lengths) > context:
        return None
    return Layout(num_rows, min(max(context, UNIT), _doubled(sum(lengths))), is_shared=True)


def _doubled(num_tokens: int) -> int:
    """The first of `UNIT`, twice as many, and so on that is enough: what grows is seldom made anew."""
    units = max(1, -(-num_tokens // UNIT))
    return UNIT << (units - 1).bit_length()
