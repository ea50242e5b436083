"""The task between API, scheduler and workers."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio import wait_all_tasks_blocked as settle
from anyio.lowlevel import checkpoint
from fake_effects import request
from fake_worker import model
from loop_bench import Bench, done, read
from msgspec.structs import replace

from pilotlight.core import Accepted, Chunk, Finished, FinishReason, Model, Prompt, Severity, WorkerState
from pilotlight.energy.meters import Method
from pilotlight.energy.totals import OTHERS
from pilotlight.errors import (
    BadRequest,
    ContextOverflow,
    ModelNotFound,
    ShuttingDown,
    Unreachable,
    WorkerFailed,
)
from pilotlight.registry.loader import LOOK_S
from pilotlight.scheduler import loop, surveys
from pilotlight.worker.protocol import Admitted, Computed, Delta, FirstDelta, Refused, State
from virtual_clock import run_virtual

LULL_S = 3600.0
"""Longer than any test."""


async def test_what_a_worker_says_reaches_the_answer(bench: Bench) -> None:
    """In order, and then the end."""
    answer, number = await bench.running("1")
    bench.worker.say(Admitted(number, 3), Delta(number, 0, "hi", 2), done(number))
    assert await read(answer) == [
        Accepted(3),
        Chunk(0, "hi", 2),
        Finished(0, FinishReason.STOP, completion_tokens=2, cached_tokens=1),
    ]


@pytest.mark.parametrize("ends_by_itself", [True, False])
async def test_the_machine_is_looked_at_while_there_is_work(bench: Bench, ends_by_itself: bool) -> None:
    """From a request on, and not after its end, whoever ends it."""
    await settle()
    assert bench.senses.told == [False]
    answer, number = await bench.running("1")
    assert bench.senses.told == [False, True]
    if ends_by_itself:
        bench.worker.say(done(number))
    else:
        async with answer:
            pass
    await settle()
    assert bench.senses.told == [False, True, False]


async def test_requests_in_one_worker_are_told_apart(bench: Bench) -> None:
    """Though their events come in one frame."""
    first, one = await bench.running("1")
    second, two = await bench.running("2")
    bench.worker.say(Delta(two, 0, "b", 1), Delta(one, 0, "a", 1), done(one), done(two))
    assert [item.text for item in await read(first) if isinstance(item, Chunk)] == ["a"]
    assert [item.text for item in await read(second) if isinstance(item, Chunk)] == ["b"]


@pytest.mark.parametrize("looks", [(20, 1, 1), (1, 20, 1)])
async def test_nobody_overtakes_while_a_file_is_looked_at(bench: Bench, looks: tuple[int, ...]) -> None:
    """Neither who came at the same time, nor who finds the model loading already."""
    bench.loader.looks = iter(looks)
    for number in (1, 2):
        bench.loop.submit(replace(request(str(number)), max_tokens=number))
    for _ in range(10):
        await checkpoint()
    bench.loop.submit(replace(request("3"), max_tokens=3))
    await settle()
    assert [generate.max_tokens for generate in bench.worker.generates] == [1, 2]
    bench.worker.say(done(bench.worker.generates[0].id))
    await settle()
    assert [generate.max_tokens for generate in bench.worker.generates] == [1, 2, 3]


async def test_every_piece_of_a_bundle_was_generated(bench: Bench) -> None:
    """One frame of a fast model has several of an answer, and its speed is that of all."""
    _, number = await bench.running("1")
    bench.worker.say(Admitted(number, 3), Delta(number, 0, "a", 1), Delta(number, 0, "b", 2))
    assert bench.slowdown._works["a"].contexts == {(number, 0): 6}


async def test_a_request_ends_with_the_last_of_its_answers(bench: Bench) -> None:
    """Not with the first."""
    answer, number = await bench.running("1", n=2)
    bench.worker.say(done(number, 1))
    assert bench.loop.status()[0].active == 2
    bench.worker.say(done(number, 0))
    assert len(await read(answer)) == 2
    await settle()
    assert bench.loop.status()[0].active == 0


async def test_a_reader_that_leaves_cancels_in_the_worker(bench: Bench) -> None:
    """By the number the worker knows."""
    answer, number = await bench.running("1")
    answer.close()
    await settle()
    assert bench.worker.cancels == [number]


async def test_late_events_of_a_cancelled_request_are_dropped(bench: Bench) -> None:
    """They were on their way when it left, before and after the loop has heard of it."""
    answer, number = await bench.running("1")
    answer.close()
    bench.worker.say(Delta(number, 0, "late", 1))
    await settle()
    bench.worker.say(Delta(number, 0, "later", 1), done(number))
    answer.end()
    assert [items async for items in answer] == []


async def test_a_request_that_ended_is_not_cancelled(bench: Bench) -> None:
    """Its reader was only slower than its end."""
    answer, number = await bench.running("1")
    bench.worker.say(done(number))
    answer.close()
    await settle()
    assert bench.worker.cancels == []


async def test_a_refusal_becomes_its_error(bench: Bench) -> None:
    """With the class, text and field the worker named."""
    answer, number = await bench.running("1")
    bench.worker.say(Refused(number, "ContextOverflow", "9 tokens; 8 fit", "messages"))
    with pytest.raises(ContextOverflow, match="9 tokens; 8 fit") as caught:
        await read(answer)
    assert caught.value.param == "messages"


async def test_a_request_no_worker_can_be_sent_is_refused(bench: Bench) -> None:
    """Free JSON may hold an integer that msgpack has no room for; the loop goes on."""
    prompt = Prompt(messages=({"role": "user", "content": "hi"},), template_kwargs={"x": 2**70})
    answer = bench.loop.submit(replace(request("1"), prompt=prompt))
    with pytest.raises(BadRequest, match="serialize"):
        await read(answer)
    await bench.running("2")
    assert bench.loop.status()[0].active == 1


async def test_progress_is_of_a_load_that_goes_on(bench: Bench) -> None:
    """What is not loaded any more, or could not be, begins with nothing."""
    await bench.loop.load("a")
    assert bench.loop.status()[0].progress == 1
    await bench.loop.unload("a")
    assert bench.loop.status()[0].progress == 0
    bench.loader.error = WorkerFailed("no such file")
    with pytest.raises(WorkerFailed):
        await bench.loop.load("a")
    assert bench.loop.status()[0].progress == 0


async def test_those_a_dead_worker_ran_hear_of_it(bench: Bench) -> None:
    """After what it had said before."""
    answer, number = await bench.running("1")
    bench.worker.say(Delta(number, 0, "half", 1))
    bench.worker.die()
    async with answer:
        assert await anext(answer) == [Chunk(0, "half", 1)]
        with pytest.raises(WorkerFailed, match=r"a: worker died of SIGKILL; the next request"):
            await anext(answer)


async def test_a_request_that_crosses_the_end_of_its_worker_hears_of_it(bench: Bench) -> None:
    """The worker had ended when it was dispatched, and nobody had heard yet."""
    await bench.loop.load("a")
    bench.worker.die()
    with pytest.raises(WorkerFailed, match="died of SIGKILL"):
        await read(bench.loop.submit(request("1")))


async def test_the_next_request_gets_a_fresh_worker(bench: Bench) -> None:
    """The notice stands until it is up."""
    answer, _ = await bench.running("1")
    bench.worker.die()
    await settle()
    answer.close()
    assert bench.codes() == ["worker_failed_a"]
    await bench.running("2")
    assert len(bench.loader.workers) == 2
    assert bench.codes() == []
    assert bench.loop.status()[0].restarts == 1


async def test_a_load_that_fails_reaches_who_asked(bench: Bench) -> None:
    """And the status, and the notices."""
    bench.loader.error = WorkerFailed("a: no such file")
    with pytest.raises(WorkerFailed, match="no such file"):
        await read(bench.loop.submit(request("1")))
    status = bench.loop.status()[0]
    assert (status.state, status.error) == (WorkerState.FAILED, "a: no such file")
    assert bench.codes() == ["worker_failed_a"]


async def test_a_worker_is_asked_for_its_state_when_it_has_nothing_to_do(bench: Bench) -> None:
    """A broken invariant becomes a notice."""
    answer, number = await bench.running("1")
    bench.worker.say(done(number))
    await read(answer)
    await bench.worker.inspected.wait()
    bench.worker.tell(State(0, 0, 0, 0, 1, fault="slot 3 is lost"))
    assert bench.codes() == ["worker_fault_a"]
    bench.worker.die()
    await settle()
    await bench.running("2")
    assert bench.codes() == [], "the next one has not broken it"


async def test_a_worker_is_not_asked_in_a_hurry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks again soon does not wait for it, and is not taken for a sequence that was forgotten."""
    event_loop = asyncio.get_running_loop()
    lulls: list[Callable[[], None]] = []

    def call_later(delay_s: float, act: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        if delay_s == LULL_S:
            lulls.append(partial(act, *args))
        return event_loop.call_at(event_loop.time() + delay_s, act, *args)

    monkeypatch.setattr(event_loop, "call_later", call_later)
    monkeypatch.setattr(loop, "LULL_S", LULL_S)
    answer, number = await bench.running("1")
    bench.worker.say(done(number))
    await read(answer)
    await settle()
    answer, number = await bench.running("2")
    (lull,) = lulls
    lull()
    await settle()
    assert not bench.worker.inspected.is_set()
    bench.worker.say(done(number))
    await read(answer)
    await settle()
    lulls[1]()
    await bench.worker.inspected.wait()


async def test_a_worker_that_loads_is_one_of_our_processes(bench: Bench) -> None:
    """What it computes then is no work of other programs."""
    assert len(bench.loop.pids()) == 1
    bench.loader.may_end = anyio.Event()
    answer = bench.loop.submit(request("r1"))
    await settle()
    assert len(bench.loop.pids()) == 2
    bench.loader.may_end.set()
    await settle()
    assert len(bench.loop.pids()) == 2
    answer.close()


async def test_a_worker_that_another_process_started_is_the_one_of_ours(bench: Bench) -> None:
    """From when it is ready on, at the latest: what it needs is measured by its pid."""
    bench.loader.starter = os.getppid()
    await bench.running("r1")
    assert bench.loop.pids() == [os.getpid(), bench.worker.pid]


async def test_a_preloaded_model_is_ready_before_anybody_asks(bench: Bench) -> None:
    """Only that one."""
    await bench.loop.load("b")
    assert [status.state for status in bench.loop.status()] == [WorkerState.STOPPED, WorkerState.READY]


async def test_a_model_that_was_not_loaded_at_start_is_told_until_it_is(bench: Bench) -> None:
    """Whoever has it loaded in the end."""
    bench.notices.raise_("not_loaded_a", Severity.ERROR, "a needs 3 GiB")
    await bench.running("1")
    assert bench.codes() == []


async def test_an_idle_worker_of_a_changed_model_is_stopped(bench: Bench) -> None:
    """The next one is loaded as it is now; others are left alone."""
    await bench.loop.load("a")
    await bench.loop.load("b")
    await settle()
    await bench.replace(replace(model("a"), context=9), model("b"))
    assert [worker.is_stopped for worker in bench.loader.workers] == [True, False]
    await bench.running("1")
    assert [loaded.context for loaded in bench.loader.models] == [0, 0, 9]
    assert bench.codes() == []


async def test_a_busy_worker_of_a_changed_model_finishes_first(bench: Bench) -> None:
    """Who comes meanwhile is served by the next one."""
    first, number = await bench.running("1")
    old = bench.worker
    await bench.replace(replace(model("a"), context=9))
    second = bench.loop.submit(request("2"))
    await settle()
    assert (len(old.generates), old.is_stopped) == (1, False)
    old.say(Delta(number, 0, "hi", 2), done(number))
    assert len(await read(first)) == 2
    await settle()
    assert old.is_stopped
    bench.worker.say(done(bench.worker.generates[-1].id))
    assert len(await read(second)) == 1
    assert bench.loader.models[-1].context == 9


async def test_who_waits_while_a_changed_model_loads_gets_the_new_one(bench: Bench) -> None:
    """Also who came before the change: nobody is answered by what was replaced."""
    bench.loader.may_end = anyio.Event()
    answers = [bench.loop.submit(request("1"))]
    await settle()
    await bench.replace(replace(model("a"), context=9))
    answers.append(bench.loop.submit(request("2")))
    bench.loader.may_end.set()
    await settle()
    assert [loaded.context for loaded in bench.loader.models] == [0, 9]
    bench.worker.say(*(done(generate.id) for generate in bench.worker.generates))
    assert [len(await read(answer)) for answer in answers] == [1, 1]


async def test_who_waits_for_a_changed_model_has_it_loaded_for_what_it_takes_now(bench: Bench) -> None:
    """It is looked at first, however long that takes, and stays as long as it says itself."""
    bench.loader.looks = iter((1, 20))
    first, number = await bench.running("1")
    await bench.replace(replace(model("a"), keep_alive_s=60.0))
    second = bench.loop.submit(request("2"))
    await settle()
    bench.worker.say(done(number))
    await read(first)
    await settle()
    bench.worker.say(done(bench.worker.generates[-1].id))
    await read(second)
    await settle()
    assert bench.loader.looked_at_before == [True, True]
    assert bench.loop.status()[0].unload_in_s is not None


async def test_a_look_that_never_ends_charges_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a drive that is gone: what has ended gives its memory back, and who waits hears why."""
    monkeypatch.setattr(surveys, "LOOK_S", 0.05)
    bench.loader.looks = iter((1, 10**9))
    first, number = await bench.running("1")
    await bench.replace(replace(model("a"), context=9))
    second = bench.loop.submit(request("2"))
    await settle()
    bench.worker.say(done(number))
    await read(first)
    with pytest.raises(Unreachable, match="could not be looked at within"):
        await read(second)
    assert bench.loop.memory().charged == 0


def test_who_waits_is_not_refused_for_a_disk_that_its_model_is_not_on_any_more() -> None:
    """The path was corrected while a look at it did not end: it is loaded from where it is now."""

    async def main() -> None:
        bench = Bench()
        wrong = replace(model("a"), path=Path("/dead/a.gguf"))
        bench.loader.dead.add(wrong.path)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.loop.run)
            await settle()
            first, number = await bench.running("1")
            await bench.replace(wrong)
            second = bench.loop.submit(request("2"))
            bench.worker.say(done(number))
            await read(first)
            await settle()
            corrected = replace(model("a"), path=Path("/other/a.gguf"))
            await bench.replace(corrected)
            await anyio.sleep(LOOK_S)
            await settle()
            assert bench.loader.models == [model("a"), corrected]
            bench.worker.say(done(bench.worker.generates[-1].id))
            assert len(await read(second)) == 1
            tasks.cancel_scope.cancel()

    run_virtual(main)


async def test_who_asked_just_before_the_end_is_told(bench: Bench) -> None:
    """Its model was looked at before the shutdown, and what it takes was not found out by then."""

    async def look_at(model: Model) -> None:
        asyncio.get_running_loop().call_soon(bench.loop.shut_down)

    bench.loop._arrivals._look_at = look_at
    with pytest.raises(ShuttingDown):
        await read(bench.loop.submit(request("1")))
    assert bench.loader.models == []


async def test_a_request_by_a_name_that_became_an_alias_is_served(bench: Bench) -> None:
    """It was held while its model was renamed, and is one of the model that has the name now."""
    await bench.replace(replace(model("c"), aliases=("a",)))
    answer, number = await bench.running("1", model="a")
    bench.worker.say(done(number))
    assert len(await read(answer)) == 1
    assert [(status.model.name, status.loads) for status in bench.loop.status()] == [("c", 1)]


async def test_what_a_worker_is_not_told_does_not_end_it(bench: Bench) -> None:
    """Other names, and values for requests that leave them out."""
    await bench.loop.load("a")
    await settle()
    await bench.replace(replace(model("a"), aliases=("x",), sampling={"temperature": 0}))
    assert not bench.worker.is_stopped
    assert bench.loop.status()[0].model.aliases == ("x",)


async def test_a_removed_model_goes_when_it_is_idle(bench: Bench) -> None:
    """Those who had asked before are served, if need be by one more worker."""
    first, number = await bench.running("1", n=2)
    second = bench.loop.submit(request("2"))
    await settle()
    await bench.replace(model("b"))
    bench.worker.say(done(number, 0), done(number, 1))
    assert len(await read(first)) == 2
    await settle()
    bench.worker.say(done(bench.worker.generates[-1].id))
    assert len(await read(second)) == 1
    await settle()
    assert all(worker.is_stopped for worker in bench.loader.workers)
    with pytest.raises(ModelNotFound):
        bench.loop.submit(request("3"))


async def test_a_removed_model_saves_no_conversations(bench: Bench) -> None:
    """Its files may have been deleted for what was said to be gone; and nobody can go on with any."""
    await bench.loop.load("a")
    bench.worker.can_save = True
    await bench.replace(model("b"))
    await settle()
    assert (bench.worker.is_finishing, bench.worker.is_stopped) == (False, True)


async def test_a_renamed_model_saves_its_conversations(bench: Bench) -> None:
    """They are its files', whatever the name."""
    await bench.loop.load("a")
    bench.worker.can_save = True
    await bench.replace(replace(model("a"), name="b"))
    await settle()
    assert bench.worker.is_finishing


async def test_the_notices_of_a_removed_model_go_with_it(bench: Bench) -> None:
    """Nobody could mend it any more."""
    bench.loader.error = WorkerFailed("a: no such file")
    with pytest.raises(WorkerFailed):
        await read(bench.loop.submit(request("1")))
    bench.notices.raise_("not_loaded_a", Severity.ERROR, "a: no such file")
    await bench.replace(model("b"))
    assert bench.codes() == []


async def test_after_the_shutdown_what_runs_goes_on(bench: Bench) -> None:
    """To its end."""
    answer, number = await bench.running("1")
    bench.loop.shut_down()
    await settle()
    bench.worker.say(done(number))
    assert len(await read(answer)) == 1


async def test_a_bug_in_the_scheduler_comes_out_of_run() -> None:
    """Where it ends the daemon, instead of leaving it deaf."""
    bench = Bench()

    async def break_it() -> None:
        await checkpoint()
        bench.loop.fail = _fail  # type: ignore[method-assign]  # a bug, on purpose
        bench.loop.shut_down()
        bench.loop.submit(request("1"))

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.loop.run)
            tasks.start_soon(break_it)
    assert caught.group_contains(ZeroDivisionError)


def _fail(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("leave_first", [True, False])
async def test_nothing_is_kept_of_a_request_that_is_over(bench: Bench, leave_first: bool) -> None:
    """Neither by its number nor by its name."""
    answer, number = await bench.running("1")
    steps: list[Callable[[], None]] = [answer.close, lambda: bench.worker.say(done(number))]
    for step in steps if leave_first else reversed(steps):
        step()
    await settle()
    assert bench.loop.status()[0].active == 0
    assert not bench.loop._answers
    assert not bench.loop._dispatches.requests


async def test_what_was_restored_is_counted(bench: Bench) -> None:
    """By request."""
    answer, number = await bench.running("1")
    bench.worker.say(Admitted(number, 9, restored=True))
    bench.worker.say(done(number))
    assert await read(answer) == [Accepted(9), Finished(0, FinishReason.STOP, 2, 1)]
    assert bench.loop.status()[0].restored == 1


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_model_that_was_tried_is_forgotten(bench: Bench, is_answered: bool) -> None:
    """Once its worker is gone, or at once if it never had one: new versions come as long as a daemon runs."""
    asked = replace(request("1"), model="new")
    bench.loop._ledger.totals.add(asked, Method.RAPL, Computed(1, decode_s=1.0), 2.0)
    async with bench.loop.trying(model("new"), asked) as answer:
        if is_answered:
            await settle()
            bench.worker.say(done(bench.worker.generates[-1].id))
            assert len([item async for items in answer for item in items]) == 1
    await settle()
    assert all(worker.is_stopped for worker in bench.loader.workers)
    assert dict(bench.books.items()) == {}
    assert bench.loader.forgotten == ["new"]
    assert list(bench.loop._ledger.totals.models) == [(OTHERS, Method.RAPL)]


async def test_what_was_cached_is_told_with_the_first_words(bench: Bench) -> None:
    """The last ones may never come."""
    answer, number = await bench.running("1")
    bench.worker.say(FirstDelta(number, 0, "a", 1, 5), Delta(number, 0, "b", 1))
    async with answer:
        assert await anext(answer) == [Chunk(0, "a", 1, cached_tokens=5), Chunk(0, "b", 1)]
