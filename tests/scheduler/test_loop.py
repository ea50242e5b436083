"""The task between API, scheduler and workers."""

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import anyio
import pytest
from anyio import wait_all_tasks_blocked as settle
from anyio.lowlevel import checkpoint
from fake_effects import request
from fake_worker import FakeLoader, FakeWorker, model
from msgspec.structs import replace

from pilotlight.core import (
    Accepted,
    Chunk,
    Finished,
    FinishReason,
    Model,
    Prompt,
    RequestClass,
    WorkerState,
)
from pilotlight.energy.ledger import Ledger
from pilotlight.errors import BadRequest, ContextOverflow, ModelNotFound, ThermalCritical, WorkerFailed
from pilotlight.notices import Notices
from pilotlight.policy.limits import EFFICIENT, Threads
from pilotlight.power.saver import Wish
from pilotlight.power.slowdown import Slowdown
from pilotlight.registry.budget import Budget
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.estimate import Estimates
from pilotlight.registry.finder import Finder
from pilotlight.registry.loader import Loader
from pilotlight.registry.pressure import Level
from pilotlight.scheduler import books, scheduler
from pilotlight.scheduler.answer import Answer, Item
from pilotlight.scheduler.books import Books
from pilotlight.scheduler.gate import Orders
from pilotlight.scheduler.loop import Loop
from pilotlight.worker.priority import Priority
from pilotlight.worker.protocol import (
    Admitted,
    Delta,
    Done,
    Hold,
    Measured,
    MeasureThreads,
    Refused,
    SetThreads,
    State,
    Trim,
)
from pilotlight.worker.protocol import Threads as SaidThreads


class FakeSenses:
    """Remembers when there was work."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    async def begin(self) -> None:
        self._tell(True)

    def end(self) -> None:
        self._tell(False)

    def _tell(self, is_work: bool) -> None:
        if self.told[-1:] != [is_work]:
            self.told.append(is_work)


class Bench:
    """A loop over fake workers."""

    def __init__(self) -> None:
        self.loader = FakeLoader()
        self.notices = Notices(clock=lambda: 0.0)
        self.catalog = Catalog([model("a"), model("b")])
        # Fake workers are as large as this process, in which many tests have run.
        self.books = Books(Estimates(), Budget.parse("64GiB"))
        self.senses = FakeSenses()
        loader = cast(Loader, self.loader)
        self.slowdown = Slowdown()
        ledger = Ledger()
        self.wishes: list[Wish] = []
        hear = self.wishes.append
        self.loop = Loop(
            self.catalog, loader, self.notices, self.books, 4, self.slowdown, ledger, self.senses, hear
        )

    @property
    def worker(self) -> FakeWorker:
        """The latest."""
        return self.loader.workers[-1]

    async def running(self, id: str, **changes: Any) -> tuple[Answer, int]:
        """A request in its worker, and its number there."""
        answer = self.loop.submit(replace(request(id), **changes))
        await settle()
        return answer, self.worker.generates[-1].id

    async def replace(self, *models: Model) -> None:
        """Read other settings."""
        await self.catalog.replace(models, Finder())
        await settle()

    def codes(self) -> list[str]:
        return [notice.code for notice in self.notices]


@pytest.fixture
async def bench(anyio_backend: str) -> AsyncIterator[Bench]:
    """Every worker is stopped in the end."""
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.loop.run)
        yield bench
        await bench.loop.stop_workers()
        tasks.cancel_scope.cancel()
    assert all(worker.is_stopped for worker in bench.loader.workers)


async def read(answer: Answer) -> list[Item]:
    async with answer:
        return [item async for item in answer]


def done(number: int, index: int = 0) -> Done:
    return Done(number, index, FinishReason.STOP, 2, 1)


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
    assert answer.queued() == []


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


async def test_those_a_dead_worker_ran_hear_of_it(bench: Bench) -> None:
    """After what it had said before."""
    answer, number = await bench.running("1")
    bench.worker.say(Delta(number, 0, "half", 1))
    bench.worker.die()
    async with answer:
        assert await anext(answer) == Chunk(0, "half", 1)
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
    assert bench.worker.num_inspects == 0
    bench.worker.say(done(number))
    await read(answer)
    await settle()
    assert bench.worker.num_inspects == 1
    bench.worker.tell(State(0, 0, 0, 0, 1, fault="slot 3 is lost"))
    assert bench.codes() == ["worker_fault_a"]


async def test_a_preloaded_model_is_ready_before_anybody_asks(bench: Bench) -> None:
    """Only that one."""
    await bench.loop.load("b")
    assert [status.state for status in bench.loop.status()] == [WorkerState.STOPPED, WorkerState.READY]


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


async def test_a_notice_of_a_removed_model_goes_with_it(bench: Bench) -> None:
    """Nobody could mend it any more."""
    bench.loader.error = WorkerFailed("a: no such file")
    with pytest.raises(WorkerFailed):
        await read(bench.loop.submit(request("1")))
    await bench.replace(model("b"))


async def test_pressure_is_a_notice_as_long_as_it_lasts(bench: Bench) -> None:
    """Workers are told to forget; when it is critical, idle ones go."""
    await bench.loop.load("b")
    bench.loop.press(Level.WARN)
    assert bench.codes() == ["memory_pressure"]
    await settle()
    assert Trim() in bench.worker.sent
    assert bench.loop.status()[1].state is WorkerState.READY
    bench.loop.press(Level.CRITICAL)
    await settle()
    assert bench.loop.status()[1].evictions == {"pressure": 1}
    assert bench.loop.status()[1].state is WorkerState.STOPPED
    bench.loop.press(Level.NONE)
    assert bench.codes() == []


async def test_what_yields_rests_while_the_policy_says_so(bench: Bench) -> None:
    """On whatever worker it runs; a worker that is loaded meanwhile is told, too."""
    await bench.running("r1", request_class=RequestClass.BATCH)
    bench.loop.obey(Orders(held_because="on battery"))
    await settle()
    bench.loop.obey(Orders())
    await settle()
    assert [one.is_held for one in bench.worker.sent if isinstance(one, Hold)] == [True, False]


def threads_sent(bench: Bench) -> list[int]:
    return [one.threads for one in bench.worker.sent if isinstance(one, SetThreads)]


async def test_threads_are_those_that_the_policy_leaves_to_what_runs(bench: Bench) -> None:
    """Also for answers that run already, and all of them once it limits no more; what waits has no say."""
    orders = Orders(threads={RequestClass.INTERACTIVE: Threads(4), RequestClass.BATCH: Threads(part=0.25)})
    batch, _ = await bench.running("r1", request_class=RequestClass.BATCH)
    bench.loop.obey(orders)
    await settle()
    answer, _ = await bench.running("r2")
    await bench.running("r3", is_overridden=True)
    bench.loop.obey(Orders())
    await settle()
    assert threads_sent(bench) == [2, 4, 8]
    bench.loop.obey(replace(orders, threads_overridden=Threads(3)))
    await settle()
    assert threads_sent(bench)[3:] == [4]
    batch.close()
    answer.close()
    await settle()
    assert threads_sent(bench)[4:] == [3]


async def test_an_answer_alone_gets_as_many_threads_as_are_enough(bench: Bench) -> None:
    """If its model says so, or a rule; prompts get all."""
    await bench.replace(replace(model("a"), is_efficient=True))
    bench.loader.enough = 3
    await bench.running("r1", is_overridden=True)
    assert bench.loader.measured_at_load == [True]
    assert bench.worker.sent[-1] == SetThreads(3, 8)
    await bench.replace(model("a"))
    bench.loop.obey(Orders(threads={RequestClass.INTERACTIVE: EFFICIENT}))
    await bench.running("r2")
    assert bench.worker.sent[-1] == SetThreads(8, 8), "the one that overrides is limited least"
    bench.loop.obey(Orders(threads_overridden=Threads(5)))
    await settle()
    assert bench.worker.sent[-1] == SetThreads(8, 8)


async def test_what_is_enough_is_found_out_when_a_rule_wants_to_know(bench: Bench) -> None:
    """While its worker runs nothing."""
    answer, number = await bench.running("r1")
    bench.loop.obey(Orders(threads={RequestClass.INTERACTIVE: EFFICIENT}))
    await settle()
    assert MeasureThreads() not in bench.worker.sent
    bench.worker.say(Admitted(number, 3), done(number))
    await read(answer)
    await settle()
    assert bench.worker.sent[-1] == MeasureThreads()
    bench.worker.tell(Measured(3))
    await settle()
    assert bench.loop.status()[0].enough_threads == 3
    await bench.running("r2")
    assert bench.worker.sent[-1] == SetThreads(3, 8)


async def test_what_a_worker_computes_with_is_what_it_says(bench: Bench) -> None:
    """Not what it was told."""
    await bench.running("r1")
    assert bench.loop.status()[0].threads == 8
    bench.loop.obey(Orders(threads={RequestClass.INTERACTIVE: Threads(2)}))
    await settle()
    assert bench.loop.status()[0].threads == 8
    bench.worker.tell(SaidThreads(2))
    assert bench.loop.status()[0].threads == 2


async def test_what_the_policy_ends_is_told_why_and_frees_its_place(bench: Bench) -> None:
    """After what it has said already; requests of other classes go on."""
    answer, number = await bench.running("r1")
    other, _ = await bench.running("r2", request_class=RequestClass.BATCH)
    bench.worker.say(Admitted(number, 3), Delta(number, 0, "so far", 2))
    bench.loop.obey(Orders(refusals={RequestClass.INTERACTIVE: ThermalCritical("too hot")}))
    await settle()
    assert answer.queued() == [Accepted(3), Chunk(0, "so far", 2)]
    with pytest.raises(ThermalCritical):
        await read(answer)
    assert bench.worker.cancels == [number]
    other.close()


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


async def evicted(bench: Bench, level: Level = Level.NONE) -> None:
    """A worker that has something to save is told to go."""
    await bench.loop.load("a")
    await settle()
    bench.worker.can_save = True
    if level is Level.NONE:
        bench.loop._unload("a")
    else:
        bench.loop.press(level)
    await settle()


async def test_a_worker_that_goes_saves_its_conversations_first(bench: Bench) -> None:
    """Then its end is no failure, and the next one may come."""
    await evicted(bench)
    assert not bench.worker.is_stopped
    assert bench.loop.status()[0].state is WorkerState.STOPPING
    bench.worker.save(2)
    await settle()
    status = bench.loop.status()[0]
    assert bench.worker.is_stopped
    assert (status.state, status.saved, status.restarts, bench.codes()) == (WorkerState.STOPPED, 2, 0, [])


async def test_one_that_does_not_end_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for its memory."""
    monkeypatch.setattr(books, "SAVE_S", 0.0)
    monkeypatch.setattr(books, "SAVE_LATE_S", 0.0)
    await bench.loop.load("a")
    bench.worker.can_save = True
    await bench.loop.unload("a")
    assert bench.worker.is_finishing
    assert bench.worker.is_stopped
    assert bench.loop.status()[0].state is WorkerState.STOPPED


async def test_when_memory_is_short_it_saves_and_when_there_is_none_it_goes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A critical machine gets its memory back at once."""
    monkeypatch.setattr(scheduler, "TRIM_S", 0.0)
    await evicted(bench, Level.WARN)
    assert not bench.worker.is_finishing, "at first it only forgets"
    bench.loop.press(Level.WARN)
    await settle()
    assert bench.worker.is_finishing
    bench.worker.save(1)
    bench.loop.press(Level.NONE)
    await settle()
    await evicted(bench, Level.CRITICAL)
    assert not bench.worker.is_finishing
    assert bench.worker.is_stopped


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
    async with bench.loop.trying(model("new"), asked) as answer:
        if is_answered:
            await settle()
            bench.worker.say(done(bench.worker.generates[-1].id))
            assert len([item async for item in answer]) == 1
    await settle()
    assert all(worker.is_stopped for worker in bench.loader.workers)
    assert dict(bench.books.items()) == {}
    assert bench.loader.forgotten == ["new"]


async def test_a_rest_holds_what_yields_in_every_worker(bench: Bench) -> None:
    """And is told once, not with every reading."""
    _, number = await bench.running("1", request_class=RequestClass.BACKGROUND)
    for is_resting in (True, True, False):
        bench.loop.rest(is_resting)
        await settle()
    assert [one.is_held for one in bench.worker.sent if isinstance(one, Hold)] == [True, False]
    bench.worker.say(Delta(number, 0, "a", 3))
    assert (bench.loop.has_yielding, bench.loop.is_answering) == (True, False)
    assert bench.loop.num_yielding_tokens == 3


async def test_a_worker_gives_way_while_it_only_has_what_yields(bench: Bench) -> None:
    """Until somebody waits for it; and not when it has nothing."""
    _, first = await bench.running("1", request_class=RequestClass.BACKGROUND)
    assert bench.worker.priorities == [Priority.LOW]
    _, second = await bench.running("2")
    assert bench.worker.priorities == [Priority.LOW, Priority.NORMAL]
    bench.worker.say(done(second))
    await settle()
    assert bench.worker.priorities[2:] == [Priority.LOW]
    bench.worker.say(done(first))
    await settle()
    assert bench.worker.priorities[3:] == [Priority.NORMAL]
    assert bench.loop.status()[0].priority == "normal"


async def test_low_clocks_are_for_what_a_rule_says_and_nothing_beside_it(bench: Bench) -> None:
    """A worker that has it is told to save energy, and the machine; not with other classes at work."""
    bench.loop.obey(Orders(eco=frozenset({RequestClass.BACKGROUND})))
    _, first = await bench.running("1", request_class=RequestClass.BACKGROUND)
    assert (bench.worker.priorities, bench.wishes[-1]) == ([Priority.ECO], Wish.HOLD)
    _, second = await bench.running("2", request_class=RequestClass.BATCH)
    assert (bench.worker.priorities[1:], bench.wishes[-1]) == ([Priority.LOW], Wish.RELEASE)
    bench.worker.say(done(second))
    await settle()
    assert bench.wishes[-1] is Wish.HOLD
    bench.worker.say(done(first))
    await settle()
    assert (bench.worker.priorities[-1], bench.wishes[-1]) == (Priority.NORMAL, Wish.REST)


async def test_interactive_work_is_no_work_that_yields(bench: Bench) -> None:
    """Its tokens are not counted, and a rest is none of its business."""
    _, number = await bench.running("1")
    bench.worker.say(Delta(number, 0, "a", 3))
    assert (bench.loop.has_yielding, bench.loop.is_answering) == (False, True)
    assert bench.loop.num_yielding_tokens == 0
