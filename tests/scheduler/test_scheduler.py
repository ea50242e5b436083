"""The decision tree: what each event leads to."""

from collections.abc import Callable, Iterator

import pytest
from fake_effects import Recorder, background, request

from pilotlight.core import RequestClass, WorkerState
from pilotlight.errors import Busy, ShuttingDown, WorkerFailed
from pilotlight.scheduler.limits import Limits
from pilotlight.scheduler.scheduler import Scheduler

GONE = WorkerFailed("gone")

Event = Callable[[Scheduler], None]


@pytest.fixture
def effects() -> Recorder:
    return Recorder()


@pytest.fixture
def scheduler(effects: Recorder) -> Iterator[Scheduler]:
    """Room for three in the queue; its invariants hold at the end of every test."""
    scheduler = Scheduler(effects, max_queued=3)
    yield scheduler
    scheduler.check()


def ask(id: str, model: str = "a", n: int = 1) -> Event:
    return lambda scheduler: scheduler.on_request(request(id, model, n))


def ready(parallel: int = 2, model: str = "a") -> Event:
    return lambda scheduler: scheduler.on_worker_ready(model, parallel)


def done(id: str) -> Event:
    return lambda scheduler: scheduler.on_request_done(id)


def leave(id: str) -> Event:
    return lambda scheduler: scheduler.on_cancel(id)


def gone(model: str = "a") -> Event:
    return lambda scheduler: scheduler.on_worker_gone(model, GONE)


def stop() -> Event:
    return lambda scheduler: scheduler.on_shutdown()


def load(id: str, model: str = "a") -> Event:
    return ask(id, model, n=0)


def behind(id: str, model: str = "a", n: int = 1) -> Event:
    return lambda scheduler: scheduler.on_request(background(id, model, n))


def limit(request_class: RequestClass, most: int) -> Event:
    return lambda scheduler: scheduler.on_limits(Limits({(request_class, False): most}))


def unlimited() -> Event:
    return lambda scheduler: scheduler.on_limits(Limits())


STORIES: dict[str, list[tuple[Event, str]]] = {
    "the first request starts the worker and waits for it": [
        (ask("1"), "start a"),
        (ask("2"), ""),
        (ready(), "dispatch 1, dispatch 2"),
    ],
    "requests of a model run in the order they came": [
        (ask("1"), "start a"),
        (ready(1), "dispatch 1"),
        (ask("2"), ""),
        (ask("3"), ""),
        (done("1"), "dispatch 2"),
        (done("2"), "dispatch 3"),
        (done("3"), "idle a"),
    ],
    "a limit holds back those of its class, and stops nothing": [
        (ask("1"), "start a"),
        (ready(4), "dispatch 1"),
        (behind("2"), "dispatch 2"),
        (behind("3"), "dispatch 3"),
        (limit(RequestClass.BACKGROUND, 2), ""),
        (behind("4"), ""),
        (ask("5"), "dispatch 5"),
        (done("2"), "dispatch 4"),
        (limit(RequestClass.BACKGROUND, 1), ""),
        (behind("6"), ""),
        (done("3"), ""),
        (unlimited(), "dispatch 6"),
    ],
    "a request for more answers than its limit runs alone": [
        (load("1"), "start a"),
        (limit(RequestClass.INTERACTIVE, 1), ""),
        (ready(4), "dispatch 1"),
        (done("1"), "idle a"),
        (ask("2"), "dispatch 2"),
        (ask("3", n=3), ""),
        (done("2"), "dispatch 3"),
        (load("4"), "dispatch 4"),
    ],
    "a request needs room for all of its answers": [
        (ask("1"), "start a"),
        (ready(3), "dispatch 1"),
        (ask("2", n=3), ""),
        (ask("3"), ""),
        (done("1"), "dispatch 2"),
        (done("2"), "dispatch 3"),
    ],
    "a request with more answers than the worker runs is refused by it at once": [
        (ask("1"), "start a"),
        (ready(2), "dispatch 1"),
        (ask("2", n=9), "dispatch 2"),
        (ask("3"), ""),
        (done("2"), "dispatch 3"),
    ],
    "models do not wait for each other": [
        (ask("1", "a"), "start a"),
        (ask("2", "b"), "start b"),
        (ready(1, "b"), "dispatch 2"),
        (ready(1, "a"), "dispatch 1"),
    ],
    "beyond the bound a request is refused": [
        (ask("1"), "start a"),
        (ask("2"), ""),
        (ask("3", "b"), "start b"),
        (ask("4", "c"), "fail 4"),
        (ready(), "dispatch 1, dispatch 2"),
        (ask("5"), ""),
    ],
    "a full queue refuses nobody who need not wait": [
        (ask("1", "b"), "start b"),
        (ready(2, "b"), "dispatch 1"),
        (ask("2"), "start a"),
        (ask("3"), ""),
        (ask("4"), ""),
        (ask("5", "b"), "dispatch 5"),
    ],
    "who leaves the queue is never heard of again": [
        (ask("1"), "start a"),
        (ask("2"), ""),
        (leave("1"), ""),
        (ready(), "dispatch 2"),
    ],
    "when all have left the worker still becomes ready": [
        (ask("1"), "start a"),
        (leave("1"), ""),
        (ready(), ""),
        (ask("2"), "dispatch 2"),
    ],
    "who leaves while running makes room": [
        (ask("1"), "start a"),
        (ready(1), "dispatch 1"),
        (ask("2"), ""),
        (leave("1"), "cancel 1, dispatch 2"),
        (leave("2"), "cancel 2, idle a"),
    ],
    "a large request that leaves the queue lets the small ones behind it run": [
        (ask("1"), "start a"),
        (ready(2), "dispatch 1"),
        (ask("2", n=2), ""),
        (ask("3"), ""),
        (leave("2"), "dispatch 3"),
    ],
    "an end and a leaving that cross do nothing twice": [
        (ask("1"), "start a"),
        (ready(), "dispatch 1"),
        (done("1"), "idle a"),
        (leave("1"), ""),
        (done("1"), ""),
    ],
    "a load that fails fails those who waited for it": [
        (ask("1"), "start a"),
        (ask("2"), ""),
        (gone(), "fail 1, fail 2"),
        (ask("3"), "start a"),
    ],
    "a worker that dies takes what it ran and is started again for those who wait": [
        (ask("1"), "start a"),
        (ready(1), "dispatch 1"),
        (ask("2"), ""),
        (gone(), "fail 1, start a"),
        (ready(1), "dispatch 2"),
    ],
    "a worker that dies while nobody waits stays down": [
        (ask("1"), "start a"),
        (ready(), "dispatch 1"),
        (done("1"), "idle a"),
        (gone(), ""),
        (ask("2"), "start a"),
    ],
    "a load is a request for nothing": [
        (load("l1"), "start a"),
        (load("l2"), ""),
        (ask("1"), ""),
        (ready(1), "dispatch l1, dispatch l2, dispatch 1"),
        (done("l1"), ""),
        (done("l2"), ""),
        (load("l3"), "dispatch l3"),
    ],
    "a full queue refuses no load": [
        (ask("1"), "start a"),
        (ask("2"), ""),
        (ask("3"), ""),
        (load("l1", "b"), "start b"),
        (leave("l1"), ""),
        (leave("1"), ""),
        (ask("4", "b"), ""),
    ],
    "interactive requests go before those in the background": [
        (ask("1"), "start a"),
        (ready(1), "dispatch 1"),
        (behind("2"), ""),
        (ask("3"), ""),
        (done("1"), "dispatch 3"),
        (done("3"), "dispatch 2"),
    ],
    "the background is in nobody's way": [
        (behind("1"), "start a"),
        (ready(2), "dispatch 1"),
        (behind("2"), "dispatch 2"),
        (behind("3"), ""),
        (ask("4"), "dispatch 4"),
        (ask("5"), "dispatch 5"),
        (ask("6"), ""),
        (done("1"), ""),
        (done("4"), "dispatch 6"),
    ],
    "the background takes what room is left": [
        (ask("1"), "start a"),
        (ready(2), "dispatch 1"),
        (behind("2"), "dispatch 2"),
        (behind("3"), ""),
        (done("1"), "dispatch 3"),
    ],
    "a line full of the background refuses nobody interactive": [
        (behind("1"), "start a"),
        (behind("2"), ""),
        (behind("3"), ""),
        (behind("4"), "fail 4"),
        (ask("5"), ""),
        (ready(1), "dispatch 5"),
    ],
    "at shutdown those who wait are refused and those who run go on": [
        (ask("1"), "start a"),
        (ready(1), "dispatch 1"),
        (ask("2"), ""),
        (ask("3", "b"), "start b"),
        (stop(), "fail 2, fail 3"),
        (ask("4"), "fail 4"),
        (done("1"), "idle a"),
    ],
    "a worker that becomes ready after the shutdown serves nobody": [
        (ask("1"), "start a"),
        (stop(), "fail 1"),
        (ready(), ""),
    ],
    "a worker that dies after the shutdown is not started again": [
        (ask("1"), "start a"),
        (ready(), "dispatch 1"),
        (stop(), ""),
        (gone(), "fail 1"),
    ],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_story(scheduler: Scheduler, effects: Recorder, story: list[tuple[Event, str]]) -> None:
    """Each event leads to exactly these effects, in this order."""
    for event, expected in story:
        event(scheduler)
        scheduler.check()
        assert ", ".join(effects.news()) == expected


def test_a_refusal_for_the_queue_says_when_to_come_back_if_that_is_known(
    scheduler: Scheduler, effects: Recorder
) -> None:
    """With the numbers; and with the time, once requests have taken theirs."""
    for id in "1234":
        scheduler.on_request(request(id))
    error = effects.errors["4"]
    assert isinstance(error, Busy)
    assert error.retry_after_s is None
    scheduler.on_worker_ready("a", 2)
    scheduler.on_time(9.0)
    scheduler.on_request_done("1")
    for id in "5678":
        scheduler.on_request(request(id))
    assert effects.errors["8"].retry_after_s == 5, "two run side by side, and each takes 9 s"
    assert "3 interactive requests are waiting; at most 3 of a class may" in error.message


def test_a_refusal_at_shutdown_is_told_apart(scheduler: Scheduler, effects: Recorder) -> None:
    """It is no fault of the client, and another daemon may come."""
    scheduler.on_shutdown()
    scheduler.on_request(request("1"))
    assert isinstance(effects.errors["1"], ShuttingDown)


def test_those_lost_with_a_worker_hear_why(scheduler: Scheduler, effects: Recorder) -> None:
    """The error that came with its end."""
    for event in (ask("1"), ready(), gone()):
        event(scheduler)
    assert effects.errors["1"] is GONE


def test_a_line_counts_sequences_and_not_requests(scheduler: Scheduler) -> None:
    """`n` answers are `n` sequences."""
    for event in (ask("1", n=2), ask("2"), ready(4)):
        event(scheduler)
    assert scheduler.line("a").active == 3


def test_who_waits_is_told_where_it_stands(scheduler: Scheduler) -> None:
    """And about how long it will be, once it is known how long the others take."""
    for event in (ask("1"), behind("2"), ask("3")):
        event(scheduler)
    standing = scheduler.standing("a", "2", 0.0)
    assert standing is not None
    assert (standing.position, standing.wait_s, standing.is_loaded) == (3, None, False)
    assert standing.text == "waiting for the model to load, position 3"
    ready(1)(scheduler)
    scheduler.on_time(10.0)
    done("1")(scheduler)
    told = scheduler.standing("a", "2", 0.0)
    assert told is not None
    assert told.text == "waiting, position 1, about 10 s"
    assert scheduler.standing("a", "3", 0.0) is scheduler.standing("a", "1", 0.0) is None


def test_who_waits_for_a_load_is_told_how_long_the_last_one_took(scheduler: Scheduler) -> None:
    """Only who is next, and only as long as it may be true."""
    for event in (ask("1"), lambda scheduler: scheduler.on_time(4.0), ready(1), gone(), ask("2"), ask("3")):
        event(scheduler)
    told = [scheduler.standing("a", id, at) for id, at in (("2", 5.0), ("2", 7.5), ("2", 8.0), ("3", 5.0))]
    assert [standing and standing.wait_s for standing in told] == [3.0, 0.5, None, None]
    assert told[0] is not None
    assert told[0].text == "waiting for the model to load, position 1, about 3 s"


def test_who_leaves_says_nothing_of_how_long_others_take(scheduler: Scheduler) -> None:
    """Nor do loads, and requests whose worker died."""
    for event in (ask("1"), ask("2"), ready(1), leave("1"), load("l"), done("l"), ask("3"), gone()):
        event(scheduler)
    standing = scheduler.standing("a", "3", 0.0)
    assert standing is not None
    assert standing.wait_s is None


def test_who_rested_for_hours_says_nothing_of_how_long_others_take(scheduler: Scheduler) -> None:
    """It had to wait for the plug in the middle; who did not, says it."""
    for event in (behind("1"), behind("2"), behind("3"), ready(1)):
        event(scheduler)
    told = []
    for id, at in (("1", 30_000.0), ("2", 30_020.0)):
        scheduler.on_time(at)
        done(id)(scheduler)
        behind(f"after {id}")(scheduler)
        standing = scheduler.standing("a", f"after {id}", at)
        told.append(standing and (standing.position, standing.wait_s))
    assert told == [(2, None), (2, 40.0)]


def test_who_stands_still_is_told_no_time(scheduler: Scheduler, effects: Recorder) -> None:
    """While what yields is paused nobody of it begins, and while a model is to go nobody at all."""
    for event in (behind("1"), behind("2"), ready(1), lambda scheduler: scheduler.on_time(9.0), done("1")):
        event(scheduler)
    behind("3")(scheduler)
    told = []
    for paused, id in (((), "4"), (("a",), "5"), (("b",), "6")):
        scheduler.on_paused(paused)
        for number in "xyz":
            behind(f"{id}{number}")(scheduler)
        standing = scheduler.standing("a", "3", 9.0)
        retry_after_s = effects.errors[f"{id}z"].retry_after_s
        told.append((standing and standing.wait_s, retry_after_s))
    scheduler.on_change("a")
    standing = scheduler.standing("a", "3", 9.0)
    assert told == [(9.0, 9), (None, None), (9.0, 9)]
    assert standing is not None
    assert standing.wait_s is None


def test_a_place_is_the_same_while_nobody_begins(scheduler: Scheduler) -> None:
    """Behind others whom the policy holds: it passes them once its worker goes on."""
    for event in (behind("1"), ready(1), behind("2"), behind("3")):
        event(scheduler)
    scheduler.on_request(request("4", request_class=RequestClass.BATCH))
    scheduler.on_held({RequestClass.BACKGROUND})
    told = []
    for paused in ((), ("a",)):
        scheduler.on_paused(paused)
        standings = [scheduler.standing("a", id, 0.0) for id in ("2", "3", "4")]
        told.append([standing and standing.position for standing in standings])
    assert told == [[1, 2, 1]] * 2


def test_a_worker_that_is_ready_twice_is_a_bug(scheduler: Scheduler) -> None:
    """Nobody asked for the second one."""
    for event in (load("1"), ready()):
        event(scheduler)
    with pytest.raises(AssertionError, match="ready while ready"):
        scheduler.on_worker_ready("a", 1)


def _runs_without_a_worker(scheduler: Scheduler) -> None:
    scheduler.line("a").running["1"] = request("1")


def _waits_and_runs(scheduler: Scheduler) -> None:
    line = scheduler.line("a")
    line.state, line.running["1"] = WorkerState.READY, request("1")
    line.queue.put(request("1"))


def _waits_though_there_is_room(scheduler: Scheduler) -> None:
    line = scheduler.line("a")
    line.state, line.parallel = WorkerState.READY, 1
    line.queue.put(request("1"))


def _waits_for_nothing(scheduler: Scheduler) -> None:
    scheduler.line("a").queue.put(request("1"))


@pytest.mark.parametrize(
    "break_it", [_runs_without_a_worker, _waits_and_runs, _waits_though_there_is_room, _waits_for_nothing]
)
def test_check_notices(break_it: Callable[[Scheduler], None]) -> None:
    """Each invariant, broken on purpose."""
    scheduler = Scheduler(Recorder(), max_queued=3)
    break_it(scheduler)
    with pytest.raises(AssertionError):
        scheduler.check()
