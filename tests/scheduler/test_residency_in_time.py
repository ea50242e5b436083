"""How long models stay, and those that are asked to go."""

import math

from stage import Stage, ask, batch, behind, change, done, gone, leave, load, ready, unload, used, wait

from pilotlight.core import RequestClass
from pilotlight.errors import WorkerFailed
from pilotlight.scheduler.limits import Limits
from pilotlight.scheduler.residency import MAX_TURN_S

INTERACTIVE, BACKGROUND, BATCH = RequestClass

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
    assert stage.play(leave("1")) == "stop a asked"
    assert stage.play(unload("a"), ready("a")) == ""
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


def test_a_load_of_a_model_that_changes_begins_anew(stage: Stage) -> None:
    """Whoever waits hears of no end, and gets the new one."""
    assert stage.play(load("a"), change("a")) == "stop a asked"
    assert stage.play(change("a")) == ""
    assert stage.play(gone("a")) == "start a"
    assert stage.play(ready("a")) == "dispatch load a"
    assert stage.play(done("load a"), ask("1", "c"), change("c")) == "stop c asked"
    assert stage.play(ask("2", "c")) == ""
    stage.scheduler.on_worker_gone("c", WorkerFailed("the old file is broken"))
    assert stage.news() == "start c"
    assert stage.play(ready("c")) == "dispatch 1, dispatch 2"


def test_a_model_that_is_about_to_leave_is_pinned_no_more(stage: Stage) -> None:
    """Who needs its room waits for it; nobody is told that it never comes."""
    stage.needs("a", 6, is_pinned=True)
    stage.play(ask("1", "a"), ready("a"), change("a"))
    assert stage.play(ask("2", "b")) == ""
    assert stage.play(done("1")) == "idle a, stop a asked"
    assert stage.play(ask("3", "b")) == ""
    assert stage.play(gone("a")) == "start b"


def test_for_whose_end_people_wait_is_known(stage: Stage) -> None:
    """Those who asked for it, and those whose answers need its room or its successor."""
    assert stage.scheduler.awaited("a") == set()
    stage.play(behind("1", "a"), ready("a"), change("a"), behind("2", "a"))
    assert stage.scheduler.awaited("a") == {BACKGROUND}
    stage.play(ask("3", "a"))
    assert stage.scheduler.awaited("a") == {INTERACTIVE, BACKGROUND}
    stage.play(leave("3"))
    assert stage.scheduler.awaited("a") == {BACKGROUND}
    stage.play(unload("a"))
    assert stage.scheduler.awaited("a") == {INTERACTIVE}
    stage.play(done("1"), gone("a"), ready("a"), behind("4", "b"), wait(MAX_TURN_S))
    assert stage.scheduler.awaited("a") == {BACKGROUND}
    stage.play(ask("5", "b"))
    assert stage.scheduler.awaited("a") == {INTERACTIVE, BACKGROUND}


def test_all_who_want_the_room_of_a_model_wait_for_its_end(stage: Stage) -> None:
    """Also those who come after the first: before its turn is theirs, that has to come."""
    stage.play(behind("1", "a"), ready("a"), batch("2", "b"), wait(MAX_TURN_S))
    assert stage.scheduler.awaited("a") == {BATCH}
    stage.needs("e", 6)
    stage.play(behind("3", "e"))
    assert stage.scheduler.awaited("a") == {BATCH, BACKGROUND}


def test_who_waits_for_a_place_waits_for_the_end_of_what_runs(stage: Stage) -> None:
    """Though its worker stays."""
    stage.play(batch("1", "a"), batch("2", "a"), ready("a"))
    assert stage.scheduler.awaited("a") == set()
    stage.play(behind("3", "a"))
    assert stage.scheduler.awaited("a") == {BACKGROUND}
    stage.play(leave("3"), ask("4", "a"), ask("5", "a"), ask("6", "a"))
    assert stage.scheduler.awaited("a") == set(), (
        "who waits for others like it gains nothing by the end of a batch"
    )


def test_nobody_waits_for_the_end_of_a_model_that_was_removed(stage: Stage) -> None:
    """Nobody asked for that; unless somebody did before."""
    stage.play(behind("1", "a"), ready("a"))
    stage.scheduler.on_unload("a", is_asked=False)
    assert stage.scheduler.awaited("a") == set()
    stage.scheduler.on_unload("a")
    stage.scheduler.on_unload("a", is_asked=False)
    assert stage.scheduler.awaited("a") == {INTERACTIVE}


def test_a_model_is_unloaded_during_the_shutdown_too(stage: Stage) -> None:
    """Who waits for it must not hold up the end."""
    stage.play(ask("1", "a"), ready("a"), unload("a"))
    stage.scheduler.on_shutdown()
    assert stage.play(done("1")) == "idle a, stop a asked"


def test_what_the_shutdown_ends_keeps_no_model_from_its_unloading(stage: Stage) -> None:
    """Neither who waits for a load, nor who runs for longer than there is time."""
    stage.play(ask("1", "a"), unload("a"), ask("2", "c"), ready("c"), unload("c"))
    stage.scheduler.on_shutdown()
    assert stage.news() == "fail 1, stop a asked"
    stage.scheduler.on_drain_limit()
    assert stage.news() == "cancel 2, fail 2, stop c asked"


def test_there_is_nothing_to_unload(stage: Stage) -> None:
    """And it is not remembered."""
    assert stage.play(unload("a")) == ""
    assert stage.play(*used("a")) == "idle a"
