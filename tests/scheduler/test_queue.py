"""Whose turn it is among those who wait."""

from collections import Counter
from collections.abc import Sequence

import pytest
from fake_effects import background, request
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilotlight.core import Request, RequestClass
from pilotlight.scheduler.queue import MOST_CLIENTS, Queue


def queue(*requests: Request) -> Queue:
    found = Queue()
    for one in requests:
        found.put(one)
    return found


def order(queue: Queue, running: Sequence[Request] = ()) -> str:
    return " ".join(request.id for request in queue.order(running))


def batch(id: str) -> Request:
    return request(id, request_class=RequestClass.BATCH)


def test_the_more_urgent_class_goes_first() -> None:
    """Whenever it came."""
    waiting = queue(batch("1"), background("2"), request("3"), background("4"), request("5"))
    assert order(waiting) == "3 5 2 4 1"
    assert waiting.rank == 0


def test_one_client_is_served_in_the_order_it_asked() -> None:
    """There is nobody to be fair to."""
    assert order(queue(*(request(id) for id in "312"))) == "3 1 2"


def test_clients_take_turns() -> None:
    """However many requests one of them has, and whoever came first."""
    many = [request(f"a{n}", client="a") for n in range(3)]
    assert order(queue(*many, request("b0", client="b"), request("c0", client="c"))) == "a0 b0 c0 a1 a2"


def test_who_runs_less_goes_first() -> None:
    """Its share is what runs side by side, not what was asked."""
    waiting = queue(request("a", client="a"), request("b", client="b"))
    assert order(waiting, [request("x", n=3, client="a"), request("y", n=2, client="b")]) == "b a"


def test_what_runs_in_another_class_takes_no_share() -> None:
    """A person who has work in the background is no less a person."""
    waiting = queue(request("a", client="a"), request("b", client="b"))
    assert order(waiting, [background("x", n=3, client="a")]) == "a b"


def test_who_was_served_longest_ago_goes_first() -> None:
    """Also when nothing of it runs any more."""
    waiting = queue(*(request(f"{client}{n}", client=client) for client in "ab" for n in range(2)))
    for id in ("a0", "b0"):
        waiting.take(next(one for one in waiting if one.id == id))
    waiting.put(request("c0", client="c"))
    assert order(waiting) == "c0 a1 b1"


def test_only_so_many_clients_are_remembered() -> None:
    """Strangers may call themselves as they like."""
    waiting = Queue()
    for number in range(MOST_CLIENTS + 50):
        waiting.put(request(str(number), client=str(number)))
        waiting.take(next(waiting.order(())))
    assert len(waiting._served) == MOST_CLIENTS
    assert len(waiting) == 0


def test_who_leaves_is_not_served() -> None:
    """Once, and without a trace."""
    waiting = queue(request("1"), request("2"))
    assert waiting.remove("1") == request("1")
    assert waiting.remove("1") is None
    assert order(waiting) == "2"
    assert [one.id for one in waiting.clear()] == ["2"]
    assert not waiting


def test_nobody_is_the_most_urgent_of_nobody() -> None:
    """A bug of who asks."""
    with pytest.raises(ValueError, match="empty"):
        _ = Queue().rank


clients = st.lists(st.sampled_from("abcd"), min_size=1, max_size=60)


@given(clients, st.integers(1, 8))
def test_nobody_waits_for_more_than_its_share(asked: list[str], num_rows: int) -> None:
    """While a client waits, no other one runs two more than it does, whatever comes in which order."""
    waiting = queue(*(request(str(number), client=client) for number, client in enumerate(asked)))
    running: list[Request] = []
    while waiting:
        if len(running) == num_rows:
            del running[0]
        first = next(waiting.order(running))
        waiting.take(first)
        running.append(first)
        active = Counter(one.client for one in running)
        assert all(active[first.client] <= active[other.client] + 1 for other in waiting)


@given(st.lists(st.tuples(st.sampled_from(RequestClass), st.sampled_from("ab")), max_size=20))
def test_the_order_is_what_taking_one_after_another_gives(asked: list[tuple[RequestClass, str]]) -> None:
    """So a position that was told holds, as long as nobody comes, leaves or ends."""
    waiting, running = Queue(), []
    for number, (request_class, client) in enumerate(asked):
        waiting.put(replace(request(str(number), client=client), request_class=request_class))
    told = list(waiting.order(()))
    for expected in told:
        first = next(waiting.order(running))
        assert first == expected
        waiting.take(first)
        running.append(first)
