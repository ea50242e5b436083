"""Who is loaded, who goes for whom, and when: the scheduler under a budget, by a clock the test moves."""

import math
from collections.abc import Callable, Iterator

import pytest
from fake_effects import Recorder, background, request

from pilotlight.core import RequestClass, WorkerState
from pilotlight.errors import DoesNotFit, NoMemory, WorkerFailed
from pilotlight.registry.pressure import Level
from pilotlight.scheduler.limits import Limits
from pilotlight.scheduler.residency import (
    KEPT_S,
    LINGER_S,
    MAX_TURN_S,
    MIN_TURN_S,
    TURN_LOADS,
    Needs,
    Residency,
    Resident,
)
from pilotlight.scheduler.scheduler import TRIM_S, Scheduler

LOAD_S = 1.0
TURN_S = TURN_LOADS * LOAD_S

Event = Callable[["Stage"], None]


class Stage:
    """A scheduler with a budget of 10 bytes; `a` and `b` need 6 each, `c` 4, `d` 11. A load takes 1 s."""

    def __init__(self, budget: int = 10) -> None:
        self.effects = Recorder()
        self.scheduler = Scheduler(self.effects, max_queued=9)
        self.scheduler.on_budget(budget, budget)
        self.now = 100.0
        self.scheduler.on_time(self.now)
        for model, num_bytes in {"a": 6, "b": 6, "c": 4, "d": 11}.items():
            self.needs(model, num_bytes)

    def needs(self, model: str, num_bytes: int, is_pinned: bool = False, keep_alive_s: float = 1000) -> None:
        self.scheduler.on_needs(model, Needs(num_bytes, is_pinned, keep_alive_s))

    def play(self, *events: Event) -> str:
        """What the last of the events led to."""
        for event in events:
            self.news()
            event(self)
            self.scheduler.check()
        return self.news()

    def news(self) -> str:
        return ", ".join(self.effects.news())

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.on_time(self.now)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.scheduler.check()


def ask(id: str, model: str, keep_alive_s: float | None = None) -> Event:
    return lambda stage: stage.scheduler.on_request(request(id, model, keep_alive_s=keep_alive_s))


def behind(id: str, model: str) -> Event:
    return lambda stage: stage.scheduler.on_request(background(id, model))


def load(model: str) -> Event:
    return lambda stage: stage.scheduler.on_request(request(f"load {model}", model, n=0))


def ready(model: str, parallel: int = 2) -> Event:
    def event(stage: Stage) -> None:
        stage.wait(LOAD_S)
        stage.scheduler.on_worker_ready(model, parallel)

    return event


def done(id: str) -> Event:
    return lambda stage: stage.scheduler.on_request_done(id)


def leave(id: str) -> Event:
    return lambda stage: stage.scheduler.on_cancel(id)


def gone(model: str) -> Event:
    return lambda stage: stage.scheduler.on_worker_gone(model, None)


def wait(seconds: float) -> Event:
    return lambda stage: stage.wait(seconds)


def unload(model: str) -> Event:
    return lambda stage: stage.scheduler.on_unload(model)


def press(level: Level) -> Event:
    return lambda stage: stage.scheduler.on_pressure(level)


def used(model: str, id: str = "") -> list[Event]:
    """It is loaded, was asked once, and is idle."""
    id = id or f"used {model}"
    return [ask(id, model), ready(model), done(id)]


# --- room ---


def test_models_that_fit_side_by_side_stay(stage: Stage) -> None:
    """Nobody goes without need."""
    assert stage.play(*used("a"), ask("1", "c")) == "start c"


def test_an_idle_model_goes_for_one_that_is_wanted(stage: Stage) -> None:
    """Whose load begins when the other's process is gone, and not before."""
    assert stage.play(*used("a"), wait(LINGER_S), ask("1", "b")) == "stop a room"
    assert stage.play(ask("2", "b")) == ""
    assert stage.play(gone("a")) == "start b"
    assert stage.play(ready("b")) == "dispatch 1, dispatch 2"


def test_a_model_that_ends_is_charged_until_its_process_is_gone(stage: Stage) -> None:
    """Its memory is not free yet."""
    stage.play(*used("a"), wait(LINGER_S), ask("1", "b"))
    assert stage.scheduler.bytes_charged == 6
    assert stage.scheduler.line("a").state is WorkerState.STOPPING
    assert stage.play(ask("2", "a")) == ""
    stage.play(gone("a"), ready("b"), done("1"), wait(LINGER_S))
    assert stage.play(gone("b")) == "start a"


def test_the_request_that_was_idle_a_moment_ago_may_have_a_successor(stage: Stage) -> None:
    """So the model lingers for it; after that it goes by itself."""
    assert stage.play(*used("a"), ask("1", "b")) == ""
    assert stage.scheduler.next_due == stage.now + LINGER_S
    assert stage.play(wait(LINGER_S)) == "stop a room"


def test_a_busy_model_is_not_ended(stage: Stage) -> None:
    """After its turn it gets nothing new, ends what it runs, and goes; the rest wait for its next turn."""
    stage.play(ask("1", "a"), ready("a"), ask("2", "b"))
    assert stage.play(ask("3", "a")) == "dispatch 3"
    assert stage.play(wait(TURN_S)) == ""
    assert stage.play(ask("4", "a")) == ""
    assert stage.play(done("1")) == ""
    assert stage.play(done("3")) == "idle a, stop a room"
    assert stage.play(gone("a")) == "start b"
    stage.play(ready("b"), done("2"))
    assert stage.play(wait(LINGER_S)) == "stop b room"
    assert stage.play(gone("b")) == "start a"
    assert stage.play(ready("a")) == "dispatch 4"


def test_a_model_keeps_its_place_for_its_turn(stage: Stage) -> None:
    """However many wait: what it cost to load must be worth it."""
    stage.play(ask("1", "a"), ready("a"), ask("2", "b"))
    assert stage.play(wait(TURN_S - 0.01), ask("3", "a")) == "dispatch 3"
    assert stage.scheduler.next_due == pytest.approx(stage.now + 0.01)


def test_a_long_turn_is_over_when_somebody_comes(stage: Stage) -> None:
    """Who had the machine for long enough need not have more."""
    stage.play(ask("1", "a"), ready("a"), wait(TURN_S), ask("2", "b"))
    assert stage.play(ask("3", "a")) == ""


def test_a_full_queue_refuses_who_would_have_to_wait_for_the_next_turn(stage: Stage) -> None:
    """Though its model has room for it."""
    stage.play(ask("1", "a"), ready("a"), wait(TURN_S), *(ask(f"b{n}", "b") for n in range(9)))
    assert stage.play(ask("2", "a")) == "fail 2"


def test_when_the_one_who_waits_for_room_leaves_all_goes_on(stage: Stage) -> None:
    """As if nobody had asked."""
    stage.play(ask("1", "a"), ready("a"), wait(TURN_S), ask("2", "b"), ask("3", "a"))
    assert stage.play(leave("2")) == "dispatch 3"
    assert stage.scheduler.next_due == math.inf


def test_those_who_wait_are_served_in_order(stage: Stage) -> None:
    """A model that has just gone is behind those who waited meanwhile, though its request came first."""
    stage.play(load("a"), ready("a", parallel=1), done("load a"), ask("1", "a"), ask("2", "a"))
    stage.needs("c", 7)
    stage.play(wait(TURN_S), ask("3", "b"), ask("4", "c"), done("1"))
    stage.play(gone("a"), ready("b"), done("3"), wait(LINGER_S))
    assert stage.play(gone("b")) == "start c"
    stage.play(ready("c"), done("4"), wait(LINGER_S))
    assert stage.play(gone("c")) == "start a"


def test_nobody_overtakes_the_first_who_waits_for_room(stage: Stage) -> None:
    """A small model that would fit would take the room the large one is waiting for."""
    stage.play(ask("1", "a"), ready("a"), ask("2", "b"))
    assert stage.play(ask("3", "c")) == ""
    stage.play(wait(TURN_S), done("1"))
    assert stage.play(gone("a")) == "start b, start c"


def test_who_fits_beside_one_that_loads_does_not_wait_for_it(stage: Stage) -> None:
    """Loads go side by side."""
    assert stage.play(ask("1", "a"), ask("2", "c")) == "start c"


def test_who_does_not_fit_beside_one_that_loads_waits_for_it(stage: Stage) -> None:
    """It gets its turn first."""
    assert stage.play(ask("1", "a"), ask("2", "b")) == ""
    assert stage.play(ready("a"), done("1"), wait(LINGER_S)) == "stop a room"


def test_a_pinned_model_stays(stage: Stage) -> None:
    """Whoever needs room, and whatever its keep_alive."""
    stage.needs("a", 4, is_pinned=True, keep_alive_s=0)
    stage.play(*used("a"), *used("b"), wait(LINGER_S))
    assert stage.play(ask("1", "c")) == "stop b room"


def test_only_as_many_go_as_must(stage: Stage) -> None:
    """One large one instead of a small one and the large one."""
    stage.needs("a", 2)
    stage.needs("b", 8)
    stage.play(*used("a"), *used("b"), wait(LINGER_S))
    assert stage.play(ask("1", "c")) == "stop b room"


def test_several_go_for_a_large_one(stage: Stage) -> None:
    """All of them before it begins."""
    stage.needs("a", 5)
    stage.needs("d", 10)
    assert stage.play(*used("a"), *used("c"), wait(LINGER_S), ask("1", "d")) == "stop a room, stop c room"
    assert stage.play(gone("a")) == ""
    assert stage.play(gone("c")) == "start d"


# --- what cannot be ---


def test_a_model_that_can_never_fit_is_refused_at_once(stage: Stage) -> None:
    """With the numbers, and what would make it fit."""
    stage.needs("d", 3 * 2**30)
    assert stage.play(ask("1", "d")) == "fail 1"
    error = stage.effects.errors["1"]
    assert isinstance(error, DoesNotFit)
    assert "d needs 3.0 GiB, and memory.budget is 0 MiB; raise it to 3.0 GiB" in error.message


def test_beside_pinned_models_less_fits(stage: Stage) -> None:
    """They never go."""
    stage.needs("a", 6, is_pinned=True)
    assert stage.play(*used("a"), ask("1", "b")) == "fail 1"
    assert "of which pinned models hold" in stage.effects.errors["1"].message


def test_what_other_programs_hold_is_no_fault_of_the_request(stage: Stage) -> None:
    """It may come again; nobody knows when."""
    stage.scheduler.on_budget(3, 10)
    assert stage.play(ask("1", "c")) == "fail 1"
    error = stage.effects.errors["1"]
    assert isinstance(error, NoMemory)
    assert error.retry_after_s is None


def test_a_model_that_turns_out_too_large_is_refused_to_those_who_wait(stage: Stage) -> None:
    """Its worker was killed for lack of memory, say."""
    stage.play(ask("1", "a"), ready("a", parallel=1), ask("2", "a"))
    stage.needs("a", 20)
    stage.scheduler.on_worker_gone("a", WorkerFailed("killed"))
    assert stage.news() == "fail 1, fail 2"
    assert isinstance(stage.effects.errors["2"], DoesNotFit)


def test_models_that_grew_beyond_the_budget_go_when_idle(stage: Stage) -> None:
    """The one whose loss costs least."""
    stage.play(*used("a"), wait(50), *used("c"))
    stage.scheduler.on_measured("c", 5)
    assert stage.news() == "stop a budget"


def test_a_worker_that_holds_less_than_charged_may_still_grow(stage: Stage) -> None:
    """Its room is kept."""
    stage.play(*used("a"))
    stage.scheduler.on_measured("a", 1)
    assert stage.scheduler.bytes_charged == 6


# --- pressure ---


def test_under_pressure_idle_models_go(stage: Stage) -> None:
    """If it did not help that all forget what they keep; busy and pinned ones stay, others may be loaded."""
    stage.needs("a", 4, is_pinned=True)
    stage.needs("b", 3)
    stage.needs("c", 3)
    stage.play(*used("a"), *used("b"), ask("1", "c"), ready("c"))
    assert stage.play(press(Level.WARN)) == "trim a, trim b, trim c"
    assert stage.play(press(Level.WARN)) == ""
    assert stage.play(wait(TRIM_S), press(Level.WARN)) == "stop b pressure"
    assert stage.play(gone("b"), ask("2", "b")) == "start b"


def test_what_it_brought_to_forget_may_be_enough(stage: Stage) -> None:
    """Pressure that ends and begins again begins anew."""
    stage.play(*used("a"))
    for _ in range(2):
        assert stage.play(wait(10), press(Level.WARN)) == "trim a"
        assert stage.play(wait(10), press(Level.NONE)) == ""


def test_when_it_gets_critical_idle_models_go_at_once(stage: Stage) -> None:
    """And who runs something forgets the rest."""
    stage.needs("a", 3)
    stage.needs("b", 3)
    stage.play(*used("a"), ask("1", "b"), ready("b"))
    assert stage.play(press(Level.CRITICAL)) == "stop a pressure, trim b"


def test_when_it_is_critical_nothing_is_loaded(stage: Stage) -> None:
    """Whoever asks hears when to come back; what is loaded serves."""
    stage.play(ask("1", "c"), ready("c"))
    assert stage.play(press(Level.CRITICAL)) == "trim c"
    assert stage.play(ask("2", "a")) == "fail 2"
    assert isinstance(stage.effects.errors["2"], NoMemory)
    assert stage.play(ask("3", "c")) == "dispatch 3"
    assert stage.play(press(Level.NONE), ask("4", "a")) == "start a"


# --- time ---


def test_a_limit_of_the_policy_counts_at_once_and_only_while_it_stands(stage: Stage) -> None:
    """Also for a model that nobody asks anything; its own keep_alive is not forgotten."""
    stage.play(ask("1", "a", keep_alive_s=500), ready("a"), done("1"))
    stage.scheduler.on_limits(keep_alive(RequestClass.INTERACTIVE, 60))
    assert stage.scheduler.next_due == stage.now + 60
    stage.scheduler.on_limits(keep_alive(RequestClass.BACKGROUND, 60))
    assert stage.scheduler.next_due == stage.now + 500
    assert stage.play(wait(400)) == ""
    stage.scheduler.on_limits(keep_alive(RequestClass.INTERACTIVE, 300))
    assert stage.play(wait(1)) == "stop a expired"


def test_who_asked_last_decides_how_long_a_model_stays(stage: Stage) -> None:
    """By the class of the request."""
    stage.scheduler.on_limits(keep_alive(RequestClass.BACKGROUND, 60))
    stage.play(ask("1", "a"), ready("a"), done("1"))
    assert stage.scheduler.next_due == stage.now + 1000
    stage.play(behind("2", "a"), done("2"))
    assert stage.scheduler.next_due == stage.now + 60


def keep_alive(request_class: RequestClass, seconds: float) -> Limits:
    return Limits(keep_alive_s={request_class: seconds})


def test_a_model_goes_after_its_keep_alive(stage: Stage) -> None:
    """Counted from the end of its last request; until then nothing is due."""
    stage.needs("a", 6, keep_alive_s=60)
    stage.play(ask("1", "a"), ready("a"))
    assert stage.scheduler.next_due == math.inf
    stage.play(wait(100), done("1"))
    assert stage.scheduler.next_due == stage.now + 60
    assert stage.play(wait(59)) == ""
    assert stage.play(wait(1)) == "stop a expired"
    assert stage.scheduler.next_due == math.inf


def test_a_request_says_how_long_its_model_stays(stage: Stage) -> None:
    """Until another says otherwise; one that says nothing changes nothing."""
    stage.play(ask("1", "a", 5.0), ready("a"), ask("2", "a"), done("1"), done("2"))
    assert stage.scheduler.next_due == stage.now + 5
    stage.play(ask("3", "a", math.inf), done("3"))
    assert stage.scheduler.next_due == math.inf
    stage.play(ask("4", "a", 0.0), done("4"))
    assert stage.play(wait(0)) == "stop a expired"


def test_a_model_loaded_for_nobody_expires_too(stage: Stage) -> None:
    """From when it was loaded."""
    stage.play(load("a"), ready("a"), done("load a"))
    assert stage.scheduler.next_due == stage.now + 1000


def test_nothing_is_due_in_a_daemon_without_models(stage: Stage) -> None:
    """No timer."""
    assert stage.scheduler.next_due == math.inf
    stage.play(*used("a"), unload("a"), gone("a"))
    assert stage.scheduler.next_due == math.inf


def test_nothing_is_due_after_the_shutdown(stage: Stage) -> None:
    """The workers are ended by others then."""
    stage.play(*used("a"))
    stage.scheduler.on_shutdown()
    assert stage.scheduler.next_due == math.inf


# --- on demand ---


def test_an_idle_model_is_unloaded_at_once(stage: Stage) -> None:
    """Pinned or not."""
    stage.needs("a", 6, is_pinned=True)
    assert stage.play(*used("a"), unload("a")) == "stop a asked"


def test_a_busy_model_is_unloaded_when_its_requests_have_ended(stage: Stage) -> None:
    """Those who come meanwhile get it loaded again."""
    assert stage.play(ask("1", "a"), ready("a"), unload("a")) == ""
    assert stage.play(ask("2", "a")) == ""
    assert stage.play(done("1")) == "idle a, stop a asked"
    assert stage.play(gone("a")) == "start a"


def test_a_load_that_nobody_waits_for_is_broken_off(stage: Stage) -> None:
    """One that somebody waits for is not."""
    assert stage.play(ask("1", "a"), unload("a")) == ""
    assert stage.play(leave("1"), unload("a")) == "stop a asked"
    assert stage.play(ready("a")) == ""
    assert stage.play(gone("a")) == ""


def test_who_asked_for_a_load_hears_that_it_was_broken_off(stage: Stage) -> None:
    """While it loads, and while it waits for room."""
    assert stage.play(load("a"), unload("a")) == "fail load a, stop a asked"
    assert stage.play(gone("a")) == ""
    stage.play(ask("1", "a"), ready("a"), load("b"))
    assert stage.play(unload("b")) == "fail load b"
    assert stage.scheduler.next_due == math.inf


def test_a_model_whose_unloading_waits_serves_those_who_waited_for_its_load(stage: Stage) -> None:
    """They asked before."""
    assert stage.play(ask("1", "a"), unload("a"), ready("a")) == "dispatch 1"
    assert stage.play(done("1")) == "idle a, stop a asked"


def test_a_model_is_unloaded_during_the_shutdown_too(stage: Stage) -> None:
    """Who waits for it must not hold up the end."""
    stage.play(ask("1", "a"), ready("a"), unload("a"))
    stage.scheduler.on_shutdown()
    assert stage.play(done("1")) == "idle a, stop a asked"


def test_there_is_nothing_to_unload(stage: Stage) -> None:
    """And it is not remembered."""
    assert stage.play(unload("a")) == ""
    assert stage.play(*used("a")) == "idle a"


# --- the formula ---


def resident(load_s: float = 1.0, idle_s: float = 0.0, num_bytes: int = 100) -> Resident:
    """At the time 1000."""
    ready_at = 900.0
    return Resident("x", num_bytes, False, math.inf, ready_at - load_s, ready_at, idle_since=1000 - idle_s)


def test_the_loss_is_the_return_weighed_by_idle_time_per_byte() -> None:
    """As the formula says."""
    assert resident(load_s=6, idle_s=2, num_bytes=50).loss(1000) == pytest.approx(6 / (1 + 2) / 50)


@pytest.mark.parametrize(
    ("goes", "stays"),
    [
        (resident(idle_s=60), resident(idle_s=30)),
        (resident(load_s=1), resident(load_s=5)),
        (resident(num_bytes=200), resident(num_bytes=100)),
        (resident(load_s=5, idle_s=99), resident(load_s=1, idle_s=9)),
    ],
    ids=["idle longer", "back sooner", "larger", "idle ten times as long outweighs five times the load"],
)
def test_who_goes_first(goes: Resident, stays: Resident) -> None:
    """The one with the smaller loss."""
    assert goes.loss(1000) < stays.loss(1000)


@pytest.mark.parametrize(
    ("load_s", "turn_s"), [(0.01, MIN_TURN_S), (2.0, 2.0 * TURN_LOADS), (100.0, MAX_TURN_S)]
)
def test_a_turn_is_a_few_loads_long_within_bounds(load_s: float, turn_s: float) -> None:
    """So that what a load cost is worth it, and nobody waits forever."""
    assert resident(load_s).turn_ends_at(is_urgent=False) == 900 + turn_s


def test_check_notices_a_model_idle_before_it_is_ready() -> None:
    """Broken on purpose."""
    residency = Residency()
    residency.begin("a", 0.0)
    residency.idle("a", 0.0)
    with pytest.raises(AssertionError, match="a: idle before"):
        residency.check()


# --- classes ---


def test_a_model_that_somebody_waits_for_is_loaded_first(stage: Stage) -> None:
    """Though others came to be wanted before it, and also when it is wanted already."""
    stage.needs("c", 6)
    stage.play(ask("1", "a"), ready("a"), wait(TURN_S), behind("2", "b"), behind("3", "c"), ask("4", "c"))
    assert stage.play(done("1")) == "idle a, stop a room"
    assert stage.play(gone("a")) == "start c"


def test_the_background_has_no_turn_to_finish(stage: Stage) -> None:
    """It ends what it runs, and gets nothing more, as soon as somebody waits for another model."""
    stage.play(behind("1", "a"), ready("a", parallel=1), behind("2", "a"))
    assert stage.play(ask("3", "b")) == ""
    assert stage.play(done("1")) == "idle a, stop a room"
    assert stage.play(gone("a")) == "start b"


def test_a_model_that_loaded_for_the_background_goes_at_once_for_somebody(stage: Stage) -> None:
    """Its requests wait for the next time."""
    stage.play(behind("1", "a"), ask("2", "b"))
    assert stage.play(ready("a")) == "stop a room"
    assert stage.play(gone("a")) == "start b"
    stage.play(ready("b"), done("2"))
    assert stage.play(wait(KEPT_S)) == "stop b room"
    assert stage.play(gone("b"), ready("a")) == "dispatch 1"


def test_a_model_in_use_is_kept_from_the_background(stage: Stage) -> None:
    """A person's next question comes within a while, and must not wait for a load."""
    stage.play(ask("1", "a"), ready("a"), wait(MAX_TURN_S), behind("2", "b"))
    assert stage.play(ask("3", "a")) == "dispatch 3"
    stage.play(done("1"))
    assert stage.play(done("3")) == "idle a"
    assert stage.scheduler.next_due == stage.now + KEPT_S
    assert stage.play(wait(KEPT_S - 1), ask("4", "a")) == "dispatch 4"
    stage.play(done("4"))
    assert stage.play(wait(KEPT_S)) == "stop a room"


def test_who_comes_to_a_model_that_goes_for_the_background_keeps_it(stage: Stage) -> None:
    """It is held for others who can wait."""
    stage.play(behind("1", "a"), ready("a", parallel=3), wait(MAX_TURN_S), behind("2", "b"))
    assert stage.play(behind("3", "a")) == ""
    assert stage.play(ask("4", "a")) == "dispatch 4, dispatch 3"


def test_what_its_own_cap_refuses_makes_nobody_go(stage: Stage) -> None:
    """Though there would be room for it, once the other has gone."""
    stage.play(ask("1", "a"), ready("a"), done("1"))
    own = DoesNotFit("b needs more than its own table allows")
    stage.scheduler.on_needs("b", Needs(6, refusal=own))
    stage.play(ask("2", "b"))
    assert stage.effects.errors["2"] is own
    assert stage.scheduler.line("a").is_loaded
