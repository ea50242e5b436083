"""What is set aside, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtimes.parking import Parked, Parking


def prefix(tokens: list[int], number: int) -> Parked:
    """Its state is that number, and it was used so many seconds after the epoch."""
    return Parked(tokens, used_at=number, outlives=True, state=number)


def parking(*prefixes: list[int], max_tokens: int = 6) -> Parking:
    """These, oldest first; each one's state is its number."""
    parking = Parking(max_tokens)
    for number, tokens in enumerate(prefixes):
        parking.put(prefix(tokens, number))
    return parking


def states(parking: Parking) -> list[int]:
    return [parked.state for parked in parking._parked]


def any_part(held: int, num_tokens: int) -> bool:
    """Of what is held can be restored."""
    return num_tokens <= held


def only_whole(held: int, num_tokens: int) -> bool:
    """As of memory with sliding windows."""
    return num_tokens == held


def test_the_one_that_shares_most_is_found() -> None:
    """With its state."""
    parked, shared = parking([1, 2], [1, 2, 3]).match([1, 2, 3, 4], any_part)
    assert parked is not None
    assert (parked.state, shared) == (1, 3)


def test_one_that_cannot_be_restored_hides_no_other() -> None:
    """Though it shares as much or more."""
    found = parking([1, 2, 3], [1, 2])
    for prompt in ([1, 2, 4], [1, 2]):
        parked, shared = found.match(prompt, only_whole)
        assert parked is not None
        assert (parked.state, shared) == (1, 2)
    assert found.match([1], only_whole) == (None, 0)


def test_nothing_shared_is_no_match() -> None:
    """Not even an empty one."""
    assert parking([1, 2]).match([3], any_part) == (None, 0)


def test_the_oldest_make_way() -> None:
    """As many as must."""
    assert states(parking([1, 1], [2, 2], [3, 3], [4, 4, 4])) == [2, 3]


def test_what_does_not_outlive_makes_way_first() -> None:
    """However many lines a batch has, and however long they are, whoever waits finds what was said."""
    found = parking([1, 1], [2, 2])
    for number in range(2, 6):
        found.put(Parked([number + 1] * 2, used_at=number, outlives=False, state=number))
        assert states(found) == [0, 1, number]
    found.put(prefix([7] * 4, 6))
    assert states(found) == [1, 6]
    found.put(Parked([8] * 6, used_at=7, outlives=False, state=7))
    assert states(found) == [1, 6]


def test_what_was_of_use_stays() -> None:
    """Instead of what was not."""
    found = parking([1, 1], [2, 2], [3, 3])
    used, _ = found.match([1], any_part)
    assert used is not None
    found.touch(used, now=9.0)
    found.put(prefix([4, 4], 3))
    assert states(found) == [2, 0, 3]
    assert [parked.used_at for parked in found.newest_first()] == [3, 9, 2]


def test_what_a_longer_one_says_goes() -> None:
    """Nobody would ask for it."""
    assert states(parking([1], [2], [1, 2])) == [1, 2]


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), max_size=20))
def test_it_never_holds_more_than_it_may(prefixes: list[list[int]]) -> None:
    """And always the newest."""
    found = Parking(6)
    for number, tokens in enumerate(prefixes):
        found.put(prefix(tokens, number))
        assert found.num_tokens <= 6
        assert states(found)[-1] == number


def test_the_newest_may_be_longer_until_it_was_of_use() -> None:
    """It comes from elsewhere, for somebody who is about to go on from it."""
    found = parking([1, 1], [2] * 9)
    assert states(found) == [1]
    longest, _ = found.match([2, 2], any_part)
    assert longest is not None
    found.touch(longest, now=9.0)
    assert states(found) == []


def test_what_made_way_meanwhile_is_back_when_it_was_of_use() -> None:
    """Instead of what was used longest ago."""
    found = parking([1, 1], [2, 2], [3, 3])
    used, _ = found.match([1], any_part)
    assert used is not None
    found.put(prefix([4, 4], 3))
    found.touch(used, now=9.0)
    assert states(found) == [2, 3, 0]


def test_the_newest_come_first() -> None:
    """For whoever has no time for all of them."""
    assert [parked.state for parked in parking([1], [2], [3]).newest_first()] == [2, 1, 0]


def test_what_is_dropped_is_gone() -> None:
    """Twice is no error."""
    found = parking([1], [2])
    used, _ = found.match([1], any_part)
    assert used is not None
    found.drop(used)
    found.drop(used)
    assert states(found) == [1]


def test_what_outlives_is_not_replaced_by_what_does_not() -> None:
    """Nobody could go on from it later."""
    found = parking([1], [2])
    found.put(Parked([1, 1], used_at=2, outlives=False, state=2))
    assert states(found) == [0, 1, 2]
    found.put(Parked([1, 1, 1], used_at=3, outlives=False, state=3))
    assert states(found) == [0, 1, 3]
    found.put(prefix([1, 1, 1, 1], 4))
    assert states(found) == [1, 4]


def test_what_says_the_same_as_one_that_outlives_does_so_too() -> None:
    """It takes its place."""
    found = parking([1, 1])
    found.put(Parked([1, 1], used_at=1, outlives=False, state=1))
    assert [(one.state, one.outlives) for one in found.newest_first()] == [(1, True)]


def test_what_is_parked_makes_way_for_what_runs() -> None:
    """The oldest first, and all if need be; but not the one that somebody goes on from."""
    found = parking([1, 1], [2, 2], [3, 3])
    oldest, _ = found.match([1], any_part)
    found.shrink(6, oldest)
    assert states(found) == [0, 1, 2]
    found.shrink(5, oldest)
    assert states(found) == [0, 2]
    found.shrink(0, oldest)
    assert states(found) == [0]
    found.shrink(0)
    assert states(found) == []
