"""Who is loaded, who goes for whom, and when: the scheduler under a budget, by a clock the test moves."""

import math
from collections.abc import Iterator

import pytest
from stage import TURN_S, Stage, ask, batch, behind, done, gone, hold, leave, load, press, ready, used, wait

from pilotlight.core import RequestClass, WorkerState
from pilotlight.errors import DoesNotFit, NoMemory, WorkerFailed
from pilotlight.registry.budget import Room
from pilotlight.registry.pressure import Level
from pilotlight.scheduler.residency import KEPT_S, LINGER_S, MAX_TURN_S, Needs
from pilotlight.scheduler.scheduler import TRIM_S

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


@pytest.mark.parametrize(
    ("settable", "text"),
    [
        (8 * 2**30, "memory.budget is 1.0 GiB; raise it to 3.0 GiB, lower the model's context, or take"),
        (3 * 2**30, "memory.budget is 1.0 GiB; lower the model's context, or take"),
        (
            None,
            "this machine, less memory.reserve, has 1.0 GiB for models; lower the model's context, or take",
        ),
    ],
    ids=["the machine has more", "it has no more", "nobody has set a budget"],
)
def test_a_model_that_can_never_fit_is_refused_at_once(stage: Stage, settable: int | None, text: str) -> None:
    """With the numbers, and what would make it fit."""
    stage.scheduler.on_budget(Room(2**30, kept=2**30, most=2**30, settable=settable))
    stage.needs("d", 3 * 2**30)
    assert stage.play(ask("1", "d")) == "fail 1"
    error = stage.effects.errors["1"]
    assert isinstance(error, DoesNotFit)
    assert f"d needs 3.0 GiB, and {text} a smaller quantization" in error.message


def test_beside_pinned_models_less_fits(stage: Stage) -> None:
    """They never go."""
    stage.needs("a", 6, is_pinned=True)
    assert stage.play(*used("a"), ask("1", "b")) == "fail 1"
    assert "of which pinned models hold" in stage.effects.errors["1"].message


def test_what_other_programs_hold_is_no_fault_of_the_request(stage: Stage) -> None:
    """It may come again; nobody knows when."""
    stage.scheduler.on_budget(Room(3, kept=3, most=10))
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


def test_an_idle_model_outlives_a_little_that_others_take(stage: Stage) -> None:
    """As far as what there is keeps it; whoever needs room gets no more than there is."""
    stage.play(*used("a"))
    for kept, news in ((6, ""), (5, "stop a budget")):
        stage.scheduler.on_budget(Room(5, kept=kept, most=10))
        stage.scheduler.on_measured("a", 1)
        assert stage.news() == news
    assert stage.play(gone("a"), ask("1", "b")) == "fail 1"


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


# --- when nobody is free ---


@pytest.fixture
def busy() -> Iterator[Stage]:
    """`a` answers somebody, `d` the background, and for `b` one of them has to go; `a` would cost less for
    what it brings."""
    stage = Stage(budget=12)
    stage.needs("a", 7)
    stage.needs("b", 5)
    stage.needs("d", 5)
    stage.play(ask("1", "a"), ready("a"), behind("2", "d"), ready("d"))
    yield stage
    stage.scheduler.check()


def test_what_runs_nothing_interactive_makes_room_before_what_does(busy: Stage) -> None:
    """However cheap the other's load is: else two that people ask would reload each other beside it."""
    busy.play(wait(TURN_S), ask("before", "d"), done("before"), ask("3", "b"))
    assert busy.play(ask("4", "a")) == "dispatch 4"
    assert busy.play(behind("5", "d")) == ""
    assert busy.play(done("2")) == "idle d, stop d room"
    assert busy.play(gone("d")) == "start b"


def test_those_who_can_wait_take_turns_beside_a_model_in_use(busy: Stage) -> None:
    """They need not wait until nobody asks that any more."""
    busy.play(wait(MAX_TURN_S), batch("3", "b"))
    assert busy.play(ask("4", "a")) == "dispatch 4"
    assert busy.play(behind("5", "d")) == ""
    assert busy.play(done("2")) == "idle d, stop d room"


def test_who_has_begun_to_make_room_goes_on_with_it(busy: Stage) -> None:
    """Though what runs in another is not interactive for a moment: else nobody would ever be empty."""
    busy.play(behind("3", "a"), ask("4", "b"))
    assert busy.play(done("1"), wait(LINGER_S)) == ""
    assert busy.play(behind("5", "d")) == ""
    assert busy.play(ask("6", "a")) == "dispatch 6"
    assert busy.play(done("2")) == "idle d, stop d room"


def test_one_that_is_free_before_the_one_that_was_to_go_goes_instead(busy: Stage) -> None:
    """Who waits need not wait for a long answer in the background."""
    busy.play(done("1"), ask("3", "b"))
    assert busy.play(behind("4", "d")) == ""
    assert busy.scheduler.next_due == busy.now + LINGER_S
    assert busy.play(wait(LINGER_S)) == "stop a room, dispatch 4"


def test_nobody_stands_still_while_the_turn_of_another_goes_on(busy: Stage) -> None:
    """It has no end while somebody chats; for who can wait, all get ready when it is over."""
    busy.needs("b", 11)
    busy.play(wait(MAX_TURN_S), batch("3", "b"), done("2"))
    assert busy.play(behind("4", "d")) == "dispatch 4"
    assert busy.play(done("1"), wait(KEPT_S - 1), behind("5", "d")) == "dispatch 5"
    assert busy.play(wait(1), behind("6", "d")) == ""
    assert busy.play(done("4"), done("5")) == "idle d, stop a room, stop d room"


def test_for_somebody_the_background_gets_ready_while_another_has_its_turn(busy: Stage) -> None:
    """That soon ends, and then its answers would be in the way."""
    busy.needs("b", 11)
    assert busy.play(ask("3", "b"), behind("4", "d")) == ""
    assert busy.play(ask("5", "a")) == "dispatch 5"
    assert busy.play(wait(TURN_S), ask("6", "a")) == ""


# --- what the policy holds ---


def test_no_model_goes_and_none_is_loaded_for_what_the_policy_holds(stage: Stage) -> None:
    """It would only rest there, and be in the way of who asks the other next."""
    stage.play(*used("a"), batch("1", "b"))
    assert stage.play(hold(RequestClass.BATCH), wait(KEPT_S)) == ""
    assert stage.play(batch("2", "c")) == ""
    assert stage.play(hold()) == "stop a room"
    assert stage.play(gone("a")) == "start b, start c"


def test_what_the_policy_holds_goes_to_no_worker_that_others_have_loaded(stage: Stage) -> None:
    """It would only rest there, and once the room is wanted all of it would be computed first."""
    stage.play(behind("1", "a"), hold(RequestClass.BACKGROUND), ask("2", "a"))
    assert stage.play(ready("a")) == "dispatch 2"
    assert stage.play(batch("3", "a")) == "dispatch 3"
    assert stage.play(behind("4", "a")) == ""
    assert stage.play(done("2"), done("3")) == "idle a"
    assert stage.play(hold()) == "dispatch 1, dispatch 4"


def test_what_may_go_on_does_not_wait_for_what_the_policy_holds(stage: Stage) -> None:
    """Neither behind it, nor beside it for the same model."""
    assert stage.play(hold(RequestClass.BATCH), batch("1", "a"), behind("2", "b")) == "start b"
    assert stage.play(ready("b"), behind("3", "a"), done("2"), wait(MAX_TURN_S)) == "stop b room"
    assert stage.play(gone("b")) == "start a"
