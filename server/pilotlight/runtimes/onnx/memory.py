"""Which sequence stands in which row of a `Graph`'s memory, and what ended sequences left outside.

A step computes rows side by side, from the first one on. So what runs stands without gaps: the last row moves
into the place of one that ends, and what ended is parked in ordinary memory, like a page that is not in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pilotlight.runtimes import batching
from pilotlight.runtimes.batching import shares_prefix
from pilotlight.runtimes.onnx.native import Graph
from pilotlight.runtimes.parking import Parked, Parking

S = TypeVar("S", bound=batching.Sequence)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the first `shared` tokens of a prompt are computed already: in a row, parked, or nowhere."""

    shared: int = 0
    row: int | None = None
    parked: Parked | None = None


class Memory(Generic[S]):
    """Owns the rows of one graph; at most `context` tokens are parked."""

    def __init__(self, graph: Graph, context: int) -> None:
        self._graph = graph
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
            self._graph.restore(row, source.parked.state, source.shared)
        elif source.row is not None:
            self._graph.copy(source.row, row, source.shared)
        sequence.slot = row
        sequence.num_computed = sequence.cached_tokens = source.shared
        self._rows.append(sequence)

    def leave(self, sequence: S, *, keeps: bool) -> None:
        """Its row goes to the last one, whose memory is given back; it is parked if it `keeps`."""
        row = sequence.slot
        assert row is not None
        num_tokens = sequence.num_computed
        if keeps and num_tokens and self._parking.fits(num_tokens):
            self._parking.put(sequence.tokens[:num_tokens], self._graph.save(row, num_tokens))
        last = self._rows.pop()
        if last is not sequence:
            assert last.slot is not None
            self._graph.copy(last.slot, row, last.num_computed)
            last.slot = row
            self._rows[row] = last
        self._graph.clear(len(self._rows))
        sequence.slot = None

    def check(self) -> None:
        """Rows and sequences agree. Raises `AssertionError`."""
        for row, sequence in enumerate(self._rows):
            assert sequence.slot == row, f"row {row} holds a sequence that believes to be in {sequence.slot}"
            computed, known = sequence.num_computed, len(sequence.tokens)
            assert 0 <= computed < known, f"row {row} holds {computed} tokens of {known}"
