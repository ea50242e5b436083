"""Which sequence stands in which row of a `Decoder`'s memory, and what ended sequences left outside.

A step computes rows side by side, from the first one on. So what runs stands without gaps: the last row moves
into the place of one that ends, and what ended is parked in ordinary memory, like a page that is not in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pilotlight.runtimes import batching
from pilotlight.runtimes.batching import shares_prefix
from pilotlight.runtimes.parking import Parked, Parking

S = TypeVar("S", bound=batching.Sequence)

Floats = npt.NDArray[np.float32]


class DecodeError(Exception):
    """The library reported a failure that is no crash."""


class Decoder(Protocol):
    """One loaded model with memory for several sequences, each in a row of its own. Knows tokens, rows and
    logits; nothing of requests. Not thread-safe."""

    largest_run: int
    """Tokens of a row that one call may compute."""

    def open(self, *, num_rows: int, context: int) -> None:
        """Make memory for so many sequences of so many tokens. Raises `LoadError`."""

    def read(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Compute a piece of a prompt whose logits nobody wants; the row holds `start` tokens before.

        Blocks without holding the GIL. Raises `DecodeError`.
        """

    def compute(self, first: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Floats:
        """Compute tokens for the rows from `first` on, as many for each; logits of the last of each row.

        `starts` says how many tokens each row holds before. Blocks without holding the GIL. The logits are
        valid until the next call. Raises `DecodeError`.
        """

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """The first tokens of one row also stand in another."""

    def clear(self, row: int) -> None:
        """Give back the memory of a row; those after it are clear already."""

    def save(self, row: int, num_tokens: int) -> Any:
        """A copy of a row's first tokens, for `restore`."""

    def restore(self, row: int, saved: Any, num_tokens: int) -> None:
        """Fill a row with the first of the saved tokens."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the first `shared` tokens of a prompt are computed already: in a row, parked, or nowhere."""

    shared: int = 0
    row: int | None = None
    parked: Parked | None = None


class Memory(Generic[S]):
    """Owns the rows of one decoder; at most `context` tokens are parked."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        self._decoder = decoder
        self._parking = Parking(context)
        self._rows: list[S] = []

    @property
    def running(self) -> Sequence[S]:
        """The sequences that have a row, in row order."""
        return tuple(self._rows)

    @property
    def num_kept(self) -> int:
        """Prefixes parked."""
        return len(self._parking)

    def find(self, tokens: list[int], running: Sequence[S]) -> Source:
        """The longest computed prefix of `tokens`: of one of these running sequences, or parked."""
        best = Source()
        for other in running:
            common = min(shares_prefix(other.tokens, tokens), other.num_computed)
            if common > best.shared:
                best = Source(common, row=other.slot)
        parked, shared = self._parking.match(tokens)
        return Source(shared, parked=parked) if parked and shared > best.shared else best

    def enter(self, sequence: S, source: Source) -> None:
        """Give the sequence the next row, which begins with the source."""
        row = len(self._rows)
        if source.parked is not None:
            self._parking.touch(source.parked)
            self._decoder.restore(row, source.parked.state, source.shared)
        elif source.row is not None:
            self._decoder.copy(source.row, row, source.shared)
        sequence.slot = row
        sequence.num_computed = sequence.cached_tokens = source.shared
        self._rows.append(sequence)

    def leave(self, sequence: S, *, keeps: bool) -> None:
        """Its row goes to the last one, whose memory is given back; it is parked if it `keeps`."""
        row = sequence.slot
        assert row is not None
        num_tokens = sequence.num_computed
        if keeps and num_tokens and self._parking.fits(num_tokens):
            self._parking.put(sequence.tokens[:num_tokens], self._decoder.save(row, num_tokens))
        last = self._rows.pop()
        if last is not sequence:
            assert last.slot is not None
            if last.num_computed:
                self._decoder.copy(last.slot, row, last.num_computed)
            last.slot = row
            self._rows[row] = last
        self._decoder.clear(len(self._rows))
        sequence.slot = None

    def check(self) -> None:
        """Rows and sequences agree. Raises `AssertionError`."""
        for row, sequence in enumerate(self._rows):
            assert sequence.slot == row, f"row {row} holds a sequence that believes to be in {sequence.slot}"
            computed, known = sequence.num_computed, len(sequence.tokens)
            assert 0 <= computed < known, f"row {row} holds {computed} tokens of {known}"
