"""Who holds which slot."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pilotlight.runtimes.prefix import Prefix, Prefixes

NUM_SLOTS = 4

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=4)


def evict(prefixes: Prefixes) -> Prefix | None:
    """Drop the one that makes way first."""
    oldest = prefixes.oldest()
    if oldest is not None:
        prefixes.drop(oldest)
    return oldest


def kept(*prefixes: list[int]) -> Prefixes:
    """These, oldest first."""
    found = Prefixes(NUM_SLOTS)
    for prefix in prefixes:
        slot = found.take()
        assert slot is not None
        found.keep(slot, prefix)
    return found


def test_the_prefix_that_shares_most_is_found() -> None:
    """With the number of tokens."""
    prefix, shared = kept([1], [1, 2, 3], [1, 2, 9, 9]).match([1, 2, 3, 4])
    assert prefix is not None
    assert (prefix.tokens, shared) == ([1, 2, 3], 3)


def test_nothing_shared_is_no_match() -> None:
    """Not even an empty one."""
    assert kept([1, 2]).match([2, 1]) == (None, 0)


def test_the_least_recently_used_is_evicted() -> None:
    """Use is keeping, or being touched."""
    prefixes = kept([1], [2], [3])
    used, _ = prefixes.match([1])
    assert used is not None
    prefixes.touch(used)
    evicted = [prefix.tokens for prefix in (evict(prefixes), evict(prefixes), evict(prefixes)) if prefix]
    assert evicted == [[2], [3], [1]]


def test_an_evicted_slot_is_free() -> None:
    """And with none left there is nothing to evict."""
    prefixes = kept([1], [2], [3], [4])
    assert prefixes.take() is None
    evicted = evict(prefixes)
    assert evicted is not None
    assert prefixes.take() == evicted.slot
    assert Prefixes(1).oldest() is None


def test_a_prefix_that_says_nothing_new_is_covered() -> None:
    """An equal or shorter one, never a longer or another."""
    covered = kept([1], [1, 2], [1, 2, 3], [2]).covered_by([1, 2])
    assert [prefix.tokens for prefix in covered] == [[1], [1, 2]]


def test_a_lost_slot_is_noticed() -> None:
    """One that is taken must be in use."""
    prefixes = Prefixes(2)
    slot = prefixes.take()
    assert slot is not None
    prefixes.check({slot})
    with pytest.raises(AssertionError, match="lost a slot"):
        prefixes.check(set())


def test_a_slot_given_back_twice_is_noticed() -> None:
    """Two sequences would get it."""
    prefixes = Prefixes(2)
    prefixes.give(0)
    with pytest.raises(AssertionError, match="free twice"):
        prefixes.check(set())


class Slots(RuleBasedStateMachine):
    """Every slot is in one place, whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.prefixes = Prefixes(NUM_SLOTS)
        self.used: set[int] = set()
        self.by_use: list[int] = []
        """Slots of the kept, least recently used first."""

    @rule()
    def take(self) -> None:
        slot = self.prefixes.take()
        assert (slot is None) == (len(self.used) + len(self.by_use) == NUM_SLOTS)
        if slot is not None:
            self.used.add(slot)

    @precondition(lambda self: self.used)
    @rule(tokens=tokens)
    def keep(self, tokens: list[int]) -> None:
        slot = self.used.pop()
        self.prefixes.keep(slot, tokens)
        self.by_use.append(slot)

    @precondition(lambda self: self.used)
    @rule()
    def give(self) -> None:
        self.prefixes.give(self.used.pop())

    @rule(tokens=tokens)
    def use(self, tokens: list[int]) -> None:
        prefix, shared = self.prefixes.match(tokens)
        if prefix is not None:
            assert prefix.tokens[:shared] == tokens[:shared]
            self.prefixes.touch(prefix)
            self.by_use.remove(prefix.slot)
            self.by_use.append(prefix.slot)

    @rule(tokens=tokens)
    def drop_covered(self, tokens: list[int]) -> None:
        for prefix in self.prefixes.covered_by(tokens):
            self.prefixes.drop(prefix)
            self.by_use.remove(prefix.slot)

    @rule()
    def evict(self) -> None:
        evicted = evict(self.prefixes)
        assert (evicted.slot if evicted else None) == (self.by_use.pop(0) if self.by_use else None)

    @invariant()
    def agrees(self) -> None:
        self.prefixes.check(self.used)
        assert {prefix.slot for prefix in self.prefixes.kept} == set(self.by_use)
        assert len(self.prefixes) == len(self.by_use)


TestSlotsAreConserved = Slots.TestCase
TestSlotsAreConserved.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
