"""Whose tokens stand where in a `Llama`'s memory: slots, shared prefixes, and what is parked outside.

Attention walks over every used cell, also those of sequences at rest: what four steps lose by that would pay
for copying them out and back. So while something runs, nothing rests inside. What ended is parked in ordinary
memory and copied back when its conversation goes on: about 10 µs a token, against milliseconds to compute it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pilotlight.runtimes.batching import Sequence, shares_prefix
from pilotlight.runtimes.llamacpp.native import Llama
from pilotlight.runtimes.parking import Parked, Parking
from pilotlight.runtimes.prefix import Prefix, Prefixes

NUM_KEPT = 8
"""Slots beyond `parallel`, for sequences that ended since the last one started."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the first `shared` tokens of a prompt are computed already: in a slot, parked, or nowhere."""

    shared: int = 0
    slot: int | None = None
    parked: Parked | None = None


class Memory:
    """Owns the slots of one `Llama`. Models whose state cannot be cut at a token share nothing."""

    def __init__(self, llama: Llama, num_slots: int, context: int) -> None:
        """`context` is the number of cells it may grow to."""
        self._llama = llama
        self._context = context
        self._prefixes = Prefixes(num_slots)
        self._parking = Parking(context // 2)

    @property
    def num_kept(self) -> int:
        """Prefixes at rest, inside and parked."""
        return len(self._prefixes) + len(self._parking)

    @property
    def num_kept_tokens(self) -> int:
        """Tokens of prefixes at rest inside."""
        return sum(len(prefix.tokens) for prefix in self._prefixes.kept)

    def find(self, tokens: list[int], running: Iterable[Sequence]) -> Source:
        """The longest computed prefix of `tokens`: kept, or of a running sequence, or parked."""
        if not self._llama.can_share_prefixes:
            return Source()
        prefix, shared = self._prefixes.match(tokens)
        best = Source(shared, prefix.slot) if prefix else Source()
        for other in running:
            common = min(shares_prefix(other.tokens, tokens), other.num_computed)
            if common > best.shared:
                best = Source(common, other.slot)
        parked, shared = self._parking.match(tokens)
        return Source(shared, parked=parked) if parked and shared > best.shared else best

    def enter(self, sequence: Sequence, source: Source) -> None:
        """Give the sequence a slot that begins with the source; what rests beside it makes way."""
        self._touch(source)
        slot = self._free_slot()
        if source.slot is not None:
            self._llama.copy(source.slot, slot, source.shared)
            self._drop_continued(source)
        # Before anything new is put inside: it takes the lowest free cells, and attention walks up to the
        # highest used one.
        self.clear_out()
        shared = self._restore(source, slot) if source.parked is not None else source.shared
        if not sequence.num_generated:
            sequence.cached_tokens = shared
        sequence.slot = slot
        sequence.num_computed = shared

    def keep(self, sequence: Sequence) -> None:
        """The sequence ended; its tokens stay for the next request that begins alike."""
        tokens = sequence.tokens[: sequence.num_computed]
        if not (tokens and self._llama.can_share_prefixes):
            self.release(sequence)
            return
        assert sequence.slot is not None
        for covered in self._prefixes.covered_by(tokens):
            self._drop(covered)
        self._parking.drop_covered_by(tokens)
        self._prefixes.keep(sequence.slot, tokens)

    def clear_out(self) -> None:
        """Park what rests inside; what is too long for that stays."""
        for prefix in self._prefixes.kept:
            if self._parking.fits(len(prefix.tokens)):
                self._park(prefix)

    def release(self, sequence: Sequence) -> None:
        """The sequence leaves and nothing of it stays."""
        assert sequence.slot is not None
        self._llama.clear(sequence.slot)
        self._prefixes.give(sequence.slot)
        sequence.slot = None
        sequence.num_computed = 0

    def grow(self, num_cells: int, running: Iterable[Sequence]) -> bool:
        """Have at least so many cells if the context allows; False if it does not, or there is no memory.

        What runs is carried over, and what rests is parked. Sequences that shared cells no longer do.
        """
        if num_cells > self._context:
            return False
        if num_cells <= self._llama.num_cells:
            return True
        while self.make_room():
            continue
        carried = [
            (sequence, self._llama.save(sequence.slot)) for sequence in running if sequence.slot is not None
        ]
        has_grown = self._llama.resize(min(self._context, 1 << (num_cells - 1).bit_length()))
        for sequence, state in carried:
            assert sequence.slot is not None
            if not self._llama.restore(sequence.slot, state):
                self.release(sequence)
        return has_grown

    def make_room(self) -> bool:
        """Free the cells of the least recently used prefix at rest; False if there is none."""
        oldest = self._prefixes.oldest()
        if oldest is None:
            return False
        self._park(oldest)
        return True

    def check(self, running: Iterable[Sequence]) -> None:
        """What we believe to be inside is what is inside. Raises `AssertionError`."""
        expected = {s.slot: s.num_computed for s in running if s.slot is not None}
        self._prefixes.check(set(expected))
        expected |= {p.slot: len(p.tokens) for p in self._prefixes.kept}
        expected |= dict.fromkeys(self._prefixes.free, 0)
        for slot, num_tokens in expected.items():
            held = self._llama.num_held(slot)
            assert held == num_tokens, f"slot {slot} holds {held} tokens, expected {num_tokens}"

    def _touch(self, source: Source) -> None:
        if source.parked is not None:
            self._parking.touch(source.parked)
        for prefix in self._prefixes.kept:
            if prefix.slot == source.slot:
                self._prefixes.touch(prefix)

    def _free_slot(self) -> int:
        slot = self._prefixes.take()
        if slot is None:
            # Never the source: that was touched last, and running sequences leave more than one slot.
            self.make_room()
            slot = self._prefixes.take()
        assert slot is not None, "running sequences never use up all slots"
        return slot

    def _drop_continued(self, source: Source) -> None:
        """A prefix that a sequence continues from its end on is kept again when that ends."""
        for prefix in self._prefixes.kept:
            if prefix.slot == source.slot and len(prefix.tokens) == source.shared:
                self._drop(prefix)

    def _restore(self, source: Source, slot: int) -> int:
        """Copy what is parked into the slot; returns how many tokens are in it."""
        assert source.parked is not None
        while not self._llama.restore(slot, source.parked.state):
            self._llama.clear(slot)
            if not self.make_room():
                return 0
        self._llama.cut(slot, source.shared)
        return source.shared

    def _park(self, prefix: Prefix) -> None:
        if self._parking.fits(len(prefix.tokens)):
            self._parking.put(prefix.tokens, self._llama.save(prefix.slot))
        self._drop(prefix)

    def _drop(self, prefix: Prefix) -> None:
        self._prefixes.drop(prefix)
        self._llama.clear(prefix.slot)
