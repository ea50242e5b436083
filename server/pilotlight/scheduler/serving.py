"""Workers from the start of their load to their end: a task each, which tells their owner."""

from functools import partial
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from pilotlight.core import Model, Severity, WorkerInfo
from pilotlight.errors import Error, OutOfMemory
from pilotlight.notices import Notices
from pilotlight.registry import oom
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.loader import Loader
from pilotlight.scheduler.books import Books, Life, Residence
from pilotlight.worker.handle import Said, Worker
from pilotlight.worker.protocol import Progress, SetThreads

log = structlog.get_logger()


class Owner(Protocol):
    """Who has workers started; `scheduler.loop.Loop` is it."""

    def on_ready(self, model: Model, info: WorkerInfo) -> None:
        """It is loaded, and takes requests."""

    def on_message(self, model: Model, message: Said) -> None:
        """Its worker said this."""

    async def on_gone(self, model: Model, error: Error | None) -> None:
        """Its process is no more, for which an `error` is the reason unless it was stopped. The owner takes
        it out of the books."""


class Serving:
    """Starts and ends workers, and keeps what the books say of them."""

    def __init__(
        self, owner: Owner, loader: Loader, catalog: Catalog, books: Books, notices: Notices
    ) -> None:
        self._owner = owner
        self._loader = loader
        self._catalog = catalog
        self._books = books
        self._notices = notices
        self._is_stopping = False

    def start(self, model: Model, tasks: TaskGroup, *, measures_threads: bool) -> None:
        """Load it and serve it, in a task of its own."""
        at = self._books[model.name]
        at.loaded, at.life, at.measures_threads = model, Life(), measures_threads
        tasks.start_soon(self._serve_model, model, at.life)

    async def stop_all(self) -> None:
        """End every worker process, its conversations saved, and wait for it; their ends are no news then."""
        self._is_stopping = True
        async with anyio.create_task_group() as tasks:
            for worker in self._books.workers:
                tasks.start_soon(partial(worker.stop, saves=True))

    def kill_all(self) -> None:
        """End them without waiting."""
        for worker in self._books.workers:
            worker.kill()

    def clear_notices(self, model: str) -> None:
        """What was wrong with its last worker, or the load at start, says nothing any more."""
        for code in ("worker_failed", "worker_fault", "not_loaded"):
            self._notices.clear(f"{code}_{model}")

    async def _serve_model(self, model: Model, life: Life) -> None:
        """Load the model, serve it until its worker ends or is stopped, and say so."""
        at = self._books[model.name]
        at.error = None
        error: Error | None = None
        with life.scope:
            try:
                await self._load_and_serve(model, at)
            except Error as exc:
                error = exc
        if self._is_stopping:
            life.gone.set()
        else:
            await self._gone(model, error)

    async def _load_and_serve(self, model: Model, at: Residence) -> None:
        """Raises the `Error` that ended it."""

        def progress(progress: Progress) -> None:
            at.progress = progress

        def spawned(pid: int) -> None:
            at.pid = pid

        log.info("loading model", model=model.name, path=str(model.path))
        started_at = anyio.current_time()
        worker = await self._loader.load(model, progress, at.measures_threads, spawned)
        at.loads += 1
        at.load_s += anyio.current_time() - started_at
        try:
            await self._serve_worker(model, worker, at)
        finally:
            await worker.stop()

    async def _serve_worker(self, model: Model, worker: Worker, at: Residence) -> None:
        info = worker.info
        assert info is not None, "a loaded worker has said what it is"
        at.worker, at.info, at.pid, at.progress = worker, info, worker.pid, Progress(1.0)
        at.threads, at.threads_told = info.threads, SetThreads(info.threads, info.threads)
        self.clear_notices(model.name)
        log.info(
            "worker ready",
            model=model.name,
            pid=worker.pid,
            mode=info.mode,
            load_s=round(info.load_s, 3),
            description=info.description,
        )
        self._owner.on_ready(model, info)
        kills = oom.kills()
        end = await worker.run(partial(self._owner.on_message, model))
        if not self._is_stopping and not (at.life and at.life.is_ending):
            at.restarts += 1
            raise oom.failure(model.name, end, kills, "; the next request starts a fresh worker") from end

    async def _gone(self, model: Model, error: Error | None) -> None:
        if error is not None:
            log.error("worker gone", model=model.name, error=error.message)
            self._books[model.name].error = error.message
        if error is not None and self._catalog.known(model.name) is not None:
            self._notices.raise_(f"worker_failed_{model.name}", Severity.ERROR, error.message)
        if isinstance(error, OutOfMemory):
            self._books.record_killed(model)
        await self._owner.on_gone(model, error)
