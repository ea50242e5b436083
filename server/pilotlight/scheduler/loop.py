"""The one task that owns the scheduler: takes events from an inbox, and carries out what it decides.

Loading and reading workers are tasks beside it (`Serving`) that come back as events. Chunks go from a worker
straight to the answer they belong to (`Hearing`); they are no decision.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec.structs import replace

from pilotlight import errors
from pilotlight.core import (
    LULL_S,
    MemoryStatus,
    Model,
    ModelStatus,
    Prompt,
    Request,
    Sampling,
    Severity,
    WorkerInfo,
)
from pilotlight.energy.ledger import Ledger
from pilotlight.errors import BackgroundBlocked, Error
from pilotlight.notices import Notices
from pilotlight.power.saver import Wish
from pilotlight.power.slowdown import Slowdown
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.loader import Loader
from pilotlight.registry.pressure import Level
from pilotlight.scheduler.alarm import Alarm
from pilotlight.scheduler.answer import Answer
from pilotlight.scheduler.arrivals import Arrivals
from pilotlight.scheduler.books import NOT_BEGUN, Books, Life, Residence
from pilotlight.scheduler.dispatches import Dispatched, Dispatches
from pilotlight.scheduler.gate import Orders
from pilotlight.scheduler.hearing import Hearing
from pilotlight.scheduler.holds import Holds
from pilotlight.scheduler.residency import Reason
from pilotlight.scheduler.scheduler import Scheduler
from pilotlight.scheduler.serving import Serving
from pilotlight.scheduler.snapshot import status_of
from pilotlight.scheduler.steering import Steering
from pilotlight.scheduler.surveys import Surveys
from pilotlight.worker.handle import Said
from pilotlight.worker.priority import Priority
from pilotlight.worker.protocol import Cancel, FrameError, Inspect, Measured, Trim

PRESSURE = {
    Level.WARN: "memory is short on this machine: conversations at rest are put away, and idle models are "
    "unloaded if that is not enough",
    Level.CRITICAL: "memory is very short on this machine: idle models are unloaded, and none is loaded",
}

UNLOAD_S = 10.0
"""A worker that is told to end is killed sooner."""

log = structlog.get_logger()


class Senses(Protocol):
    """Who looks at the machine while there is work; `power.sampling.Sampler` does."""

    async def begin(self) -> None:
        """There is work; returns soon, and at once if there was some before."""

    def end(self) -> None:
        """There is none any more."""


class Loop:
    """`Effects` and event source of one `Scheduler`, and `Owner` of all workers; `wish` hears what clocks the
    machine is to have."""

    def __init__(
        self,
        catalog: Catalog,
        loader: Loader,
        notices: Notices,
        books: Books,
        max_queued: int,
        slowdown: Slowdown,
        ledger: Ledger,
        senses: Senses,
        wish: Callable[[Wish], None] = lambda wish: None,
    ) -> None:
        self._catalog = catalog
        self._loader = loader
        self._notices = notices
        self._books = books
        self._slowdown = slowdown
        self._ledger = ledger
        self._senses = senses
        self._wish = wish
        self._scheduler = Scheduler(self, max_queued)
        self._inbox: deque[Callable[[], None]] = deque()
        self._alarm = Alarm()
        self._answers: dict[str, Answer] = {}
        self._arrivals = Arrivals(
            is_loaded=lambda name: self._scheduler.line(name).is_loaded,
            look_at=loader.look_at,
            ask=lambda model, request: self._post(partial(self._ask, model, request)),
            fail=self.fail,
        )
        self._surveys = Surveys(self._scheduler, books, catalog, loader, self._post)
        self._dispatches = Dispatches()
        self._holds = Holds()
        self._steering = Steering(self._holds, self._dispatches, books, catalog, loader)
        self._hearing = Hearing(self._answers, self._dispatches, books, slowdown, ledger, notices, self._done)
        self._serving = Serving(self, loader, catalog, books, notices)
        self._num_loads_asked = 0
        self._tasks: TaskGroup | None = None
        self._is_critical = False
        self._is_stopping = False
        catalog.watch(self._on_catalog)

    # --- for the API ---

    def submit(self, request: Request) -> Answer:
        """Queue a request; refusals come out of the answer. Raises `ModelNotFound`."""
        model = self._catalog.get(request.model)
        # While it was held, its model's name may have become an alias.
        return self._submit(model, replace(request, model=model.name))

    @asynccontextmanager
    async def trying(self, model: Model, request: Request) -> AsyncIterator[Answer]:
        """The answer of a model that is not in the catalog; it is unloaded afterwards, and forgotten."""
        try:
            async with self._submit(model, request) as answer:
                yield answer
        finally:
            # Nobody tells the end of a worker any more if the loop itself has ended.
            with anyio.move_on_after(UNLOAD_S, shield=True):
                await self.unload(model.name)
            self._post(lambda: self._drop(model.name))

    def _drop(self, model: str) -> None:
        """Nothing is known of it any more, unless it is still there."""
        if self._books[model].life is None and self._scheduler.forget(model):
            self._books.forget(model)
            self._loader.forget(model)
            self._slowdown.forget(model)
            self._ledger.forget(model)

    def _submit(self, model: Model, request: Request) -> Answer:
        self._books[request.model].model = model
        if model.concurrency:
            request = replace(request, side_by_side=model.concurrency.get(request.request_class))
        answer = Answer(request.id, release=lambda: self._release(request.id))
        self._answers[request.id] = answer
        assert self._tasks is not None, "the loop runs before the first request comes in"
        self._arrivals.add(model, request, self._tasks)
        return answer

    def standing(self, request: Request) -> str | None:
        """Why a request that was submitted does not run now, in a line for a person; None if it does."""
        standing = self._scheduler.standing(request.model, request.id, anyio.current_time())
        at = self._books[request.model]
        if standing is None:
            is_paused = at.pauses.num_sequences > 0
        else:
            is_paused = at.is_held or request.request_class in self._holds.orders.held
        said = [] if standing is None else [standing.text]
        if request.yields and is_paused:
            said.append(self._holds.reason(request.request_class, self._dispatches.urgent_models))
        return "; ".join(said) or None

    async def load(self, model: str, keep_alive_s: float | None = None) -> None:
        """Have it loaded, in its turn; returns once it is. Raises what a request would hear."""
        self._num_loads_asked += 1
        request = Request(
            f"load-{self._num_loads_asked}", model, Prompt(), Sampling(), n=0, keep_alive_s=keep_alive_s
        )
        async with self.submit(request) as answer:
            async for _ in answer:
                raise AssertionError("a request for no answers has none")

    async def unload(self, model: str) -> None:
        """End its worker once it runs nothing; returns when its memory is free. Nothing to do without one."""
        self._unload(model)
        if (life := self._books[model].life) is not None:
            await life.gone.wait()

    def press(self, level: Level) -> None:
        """The machine's memory pressure is this now."""
        self._is_critical = level is Level.CRITICAL
        if level is Level.NONE:
            self._notices.clear("memory_pressure")
        else:
            self._notices.raise_("memory_pressure", Severity.WARNING, PRESSURE[level])
        self._post(lambda: self._scheduler.on_pressure(level))

    @property
    def is_answering(self) -> bool:
        """Interactive requests run."""
        return bool(self._dispatches.urgent_models)

    @property
    def has_yielding(self) -> bool:
        """Others do, or are held."""
        return any(request.yields for request in self._dispatches.requests)

    @property
    def num_yielding_tokens(self) -> int:
        """That were generated so far by such requests."""
        return self._hearing.num_yielding_tokens

    def rest(self, is_resting: bool) -> None:
        """Hold what yields in all workers, or let it go on where nothing interactive runs."""
        if is_resting is not self._holds.is_resting:
            self._holds.is_resting = is_resting
            self._alarm.ring()

    def obey(self, orders: Orders) -> None:
        """What the policy wants of what runs, until it says otherwise."""
        if orders.refusals:
            # First: who waits must not get the place of one that ends.
            self._post(partial(self._scheduler.on_refusals, orders.refusals))
        if orders.limits != self._holds.orders.limits:
            self._post(lambda: self._scheduler.on_limits(orders.limits))
        if orders.held.keys() != self._holds.orders.held.keys():
            # Who rested may have done so for hours.
            self._post(self._surveys.take_budget)
            self._post(partial(self._scheduler.on_held, frozenset(orders.held)))
        self._holds.orders = orders
        for request in self._dispatches.requests:
            refusal = orders.refusals.get(request.request_class)
            if refusal is not None and self._concerns(refusal, request):
                self._end(request.id, refusal)
                self._post(partial(self._on_left, request.id))
        self._alarm.ring()

    def _concerns(self, refusal: Error, request: Request) -> bool:
        """What is critical ends all of a class; that it was paused for too long, only what is paused: beside
        another class it goes on, and where somebody waits for its model."""
        return self._books[request.model].is_held or not isinstance(refusal, BackgroundBlocked)

    def status(self) -> Sequence[ModelStatus]:
        """A snapshot per model; wakes nothing."""
        return tuple(self._status(model) for model in self._catalog)

    def pids(self) -> list[int]:
        """Of our own processes, workers that load still among them."""
        return [os.getpid(), *(at.pid for _, at in self._books.items() if at.pid is not None)]

    def memory(self) -> MemoryStatus:
        """A snapshot of the budget."""
        return self._books.status(self._scheduler.bytes_charged)

    def _status(self, model: Model) -> ModelStatus:
        line, resident = self._scheduler.line(model.name), self._scheduler.resident(model.name)
        at, cost = self._books[model.name], self._loader.cost(model)
        status = status_of(model, line, resident, at, cost, anyio.current_time())
        return replace(status, enough_threads=self._loader.enough_threads(model.name))

    # --- life ---

    async def run(self) -> None:
        """Handle events until cancelled. A bug in the scheduler comes out of here and ends the daemon."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            while True:
                if self._answers:
                    await self._senses.begin()
                self._scheduler.on_time(anyio.current_time())
                while self._inbox:
                    self._inbox.popleft()()
                if not self._answers:
                    self._senses.end()
                self._scheduler.on_paused(self._steering.steer(self._scheduler.awaited))
                self._wish(self._holds.clocks(self._dispatches.classes))
                await self._alarm.sleep(self._scheduler.next_due)

    def shut_down(self) -> None:
        """Take no new requests; what runs goes on."""
        self._is_stopping = True
        self._post(self._scheduler.on_shutdown)
        self._arrivals.close()

    def end_drain(self) -> None:
        """End what still runs."""
        self._post(self._scheduler.on_drain_limit)

    async def stop_workers(self) -> None:
        """End every worker process, its conversations saved, and wait for it; their ends are no news then."""
        await self._serving.stop_all()

    def kill_workers(self) -> None:
        """End them without waiting."""
        self._serving.kill_all()

    def _on_catalog(self) -> None:
        """Models may be gone or have other settings: a worker of what is no more ends once it is idle."""
        for name, at in self._books.items():
            model = self._catalog.known(name)
            if model is not None:
                at.model = model
                self._surveys.renew(model, self._tasks)
            else:
                self._serving.clear_notices(name)
            if at.loaded is not None and model is None:
                self._unload(name, is_asked=False)
            elif at.loaded is not None and model is not None and not model.is_loaded_as(at.loaded):
                self._post(partial(self._scheduler.on_change, name))

    def _unload(self, model: str, *, is_asked: bool = True) -> None:
        self._post(lambda: self._scheduler.on_unload(model, is_asked=is_asked))

    def _post(self, event: Callable[[], None]) -> None:
        self._inbox.append(event)
        self._alarm.ring()

    # --- effects ---

    def start(self, model: str) -> None:
        assert self._tasks is not None, "the loop runs before the first request comes in"
        at = self._books[model]
        assert at.model is not None and at.surveyed is not None, f"{model} was never asked for"
        if at.model.is_loaded_as(at.surveyed):
            measures_threads = self._steering.wants_measured(at.model)
            self._serving.start(at.model, self._tasks, measures_threads=measures_threads)
        else:
            # It was charged for other settings: it ends before it begins, and is looked at as it is now.
            at.life = Life()
            self._tasks.start_soon(self.on_gone, at.surveyed, None)

    def stop(self, model: str, reason: Reason) -> None:
        at = self._books[model]
        assert at.life is not None, f"{model} is stopped without a life"
        log.info("unloading model", model=model, reason=reason.value, bytes=at.bytes_resident)
        at.evictions[reason.value] += 1
        # When memory is that short, nothing may delay its return. And nobody goes on with conversations of
        # files that no model has any more.
        is_there = at.loaded is not None and any(one.path == at.loaded.path for one in self._catalog)
        at.life.end(at.worker, saves=is_there and not self._is_critical)

    def dispatch(self, request: Request) -> None:
        if not request.n:
            self._end(request.id, None)
            self._post(partial(self._scheduler.on_request_done, request.id))
            return
        worker = self._books[request.model].worker
        assert worker is not None, f"{request.model} is ready without a worker"
        dispatched, refusal = self._dispatches.add(request), None
        # It computes while the rest is noted.
        try:
            worker.send(dispatched.message)
        except FrameError as exc:
            refusal = errors.BadRequest(f"the request holds what no worker can be sent: {exc}")
        now = anyio.current_time()
        self._slowdown.began(request.model, dispatched.sequences, now)
        self._ledger.began(dispatched.number, request, worker.pid, now)
        if (answer := self._answers.get(request.id)) is not None:
            answer.begin()
        if refusal is not None:
            self._done(request, refusal)

    def cancel(self, request: Request) -> None:
        dispatched = self._forget(request)
        worker = self._books[request.model].worker
        if worker is not None and dispatched is not None:
            worker.send(Cancel(dispatched.number))

    def fail(self, request: Request, error: Error) -> None:
        self._forget(request)
        self._end(request.id, error)

    def idle(self, model: str) -> None:
        if self._catalog.known(model) is None:
            # It was loaded once more, for those who waited while it was removed.
            self._unload(model, is_asked=False)
        at = self._books[model]
        if at.look_over is not None:
            at.look_over.cancel()
        # The last answer's reader has not sent it yet, and the next request may follow at once.
        loop = asyncio.get_running_loop()
        at.look_over = loop.call_later(LULL_S, self._post, partial(self._look_over, at))

    def _look_over(self, at: Residence) -> None:
        """A good moment to let a worker check its invariants, if it still has nothing better to do."""
        self._scheduler.check()
        if at.loaded is None or self._dispatches.of(at.loaded.name):
            return
        self._measure(at.loaded)
        if at.worker is not None:
            at.worker.send(Inspect())
            self._steering.measure(at.loaded)

    def trim(self, model: str) -> None:
        at = self._books[model]
        if at.worker is not None and at.loaded is not None:
            at.worker.send(Trim())
            log.info("prefixes dropped", model=model)

    # --- what becomes of workers ---

    def on_ready(self, model: Model, info: WorkerInfo) -> None:
        self._post(lambda: self._on_ready(model, info))
        self._measure(model)

    def _on_ready(self, model: Model, info: WorkerInfo) -> None:
        # A load is long enough for other programs to come and go.
        self._surveys.take_budget()
        self._scheduler.on_worker_ready(model.name, info.parallel)

    def on_message(self, model: Model, message: Said) -> None:
        if isinstance(message, Measured):
            self._on_measured(model, message.threads)
        else:
            self._hearing.hear(model, message)

    def _on_measured(self, model: Model, threads: int) -> None:
        info = self._books[model.name].info
        assert self._tasks is not None and info is not None, "somebody has asked its worker"
        self._tasks.start_soon(self._loader.measured, model, replace(info, enough_threads=threads))

    async def on_gone(self, model: Model, error: Error | None) -> None:
        now, is_known = model, True
        # Who waits has it started as it is now, with what that costs. What has ended is charged so long.
        while not (newest := self._books[model.name].model or model).is_loaded_as(now):
            now, is_known = newest, await self._surveys.look_at(newest)
        self._post(lambda: self._on_gone(now, error, is_known=is_known))
        if error is not None:
            await self._surveys.find_anew(model, error)

    def _on_gone(self, model: Model, error: Error | None, *, is_known: bool) -> None:
        at = self._books[model.name]
        # Not sooner: what was dispatched since its end is lost with it.
        life, at.life, at.loaded, at.pid, at.worker = at.life, None, None, None, None
        at.is_held, at.priority, at.progress = False, Priority.NORMAL, NOT_BEGUN
        at.pauses.note(0, anyio.current_time())
        if is_known:
            self._surveys.take(model)
        else:
            self._surveys.give_up(model)
        self._scheduler.on_worker_gone(model.name, error)
        assert life is not None, f"{model.name} ended without having begun"
        life.gone.set()

    # --- memory ---

    def _ask(self, model: Model, request: Request) -> None:
        if request.id not in self._answers:
            return  # the reader has left meanwhile
        if self._is_stopping:
            # Nothing is surveyed any more, as that asks the disk; the scheduler may hear of the end later.
            self.fail(request, errors.ShuttingDown("the daemon is shutting down"))
            return
        if self._books[model.name].model is None:
            # It was forgotten while its file was looked at.
            self._books[model.name].model = model
        if not self._scheduler.line(model.name).is_loaded:
            self._surveys.take(model)
        self._scheduler.on_request(request)

    def _measure(self, model: Model) -> None:
        num_bytes = self._books.measure(model)
        self._post(lambda: self._scheduler.on_measured(model.name, num_bytes))

    # --- ends ---

    def _done(self, request: Request, error: Error | None = None) -> None:
        dispatched, answer = self._forget(request), self._answers.get(request.id)
        if answer is not None and dispatched is not None:
            answer.energy = dispatched.energy
        self._end(request.id, error)
        loaded = self._books[request.model].loaded
        if loaded is not None and self._books.is_due(request.model):
            self._measure(loaded)
        # First the answer's reader, who is woken by now, sends it.
        event = partial(self._on_done, request.id, error)
        asyncio.get_running_loop().call_soon(self._post, event)

    def _on_done(self, request_id: str, error: Error | None) -> None:
        """It may have run for an hour: what is idle now stays or goes by what there is now."""
        self._surveys.renew_budget()
        self._scheduler.on_request_done(request_id, error)

    def _on_left(self, request_id: str) -> None:
        """As when it is done."""
        self._surveys.renew_budget()
        self._scheduler.on_cancel(request_id)

    def _end(self, request_id: str, error: Error | None) -> None:
        """The answer is complete. Its reader may still be behind; its release is nobody's business then."""
        if (answer := self._answers.pop(request_id, None)) is not None:
            answer.end(error)

    def _release(self, request_id: str) -> None:
        """The reader has left. If the request has not ended by itself, it is cancelled."""
        if self._answers.pop(request_id, None) is not None:
            self._post(lambda: self._on_left(request_id))

    def _forget(self, request: Request) -> Dispatched | None:
        dispatched = self._dispatches.remove(request)
        if dispatched is not None:
            self._slowdown.ended(request.model, dispatched.sequences)
            dispatched.energy = self._ledger.ended(dispatched.number, request, anyio.current_time())
        return dispatched
