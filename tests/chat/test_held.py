"""What a template still holds of what it has made."""

from pilotlight.chat.held import STEP, Held


def test_what_nothing_refers_to_is_let_go_of() -> None:
    """However much was made."""
    held = Held()
    assert max(held.add(bytes(STEP)) for _ in range(9)) < 3 * STEP


def test_what_is_kept_is_counted() -> None:
    """All of it, through every look."""
    held = Held()
    kept = [bytes(STEP) for _ in range(9)]
    assert [held.add(each) for each in kept][-1] > 9 * STEP


def test_what_only_something_let_go_of_refers_to_is_let_go_of_with_it() -> None:
    """In one look: the newest is asked for first."""
    held = Held()
    for _ in range(9):
        text = bytes(STEP // 2)
        held.add(text)
        num_bytes = held.add([text])
    assert num_bytes < 3 * STEP


def test_what_is_told_twice_counts_once() -> None:
    """As what a filter gives back as it got it."""
    held = Held()
    text = bytes(STEP // 2)
    assert held.add(text) == held.add(text)


def test_what_is_not_seen_from_outside_counts_as_long_as_what_holds_it() -> None:
    """As the arguments of a call."""
    held = Held()
    kept = object()
    assert held.add(kept, more=2 * STEP) > 2 * STEP
    assert max(held.add(object(), more=STEP) for _ in range(9)) < 5 * STEP
