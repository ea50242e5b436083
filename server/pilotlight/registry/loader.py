"""Turns a model into a loaded worker, down the crash ladder if it must."""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import structlog
from msgspec.structs import replace

from pilotlight.core import Archive, Cost, Loading, Model, Severity, WorkerInfo
from pilotlight.errors import DoesNotFit, Error, RuntimeMissing, Unreachable, WorkerFailed
from pilotlight.notices import Notices
from pilotlight.registry import oom
from pilotlight.registry.costs import Costs
from pilotlight.registry.digest import digest_of
from pilotlight.registry.enough import Enough
from pilotlight.registry.ladder import COSTS, Ladder
from pilotlight.registry.reader import HeaderError
from pilotlight.worker.handle import LoadRefusedError, Worker, WorkerEndedError
from pilotlight.worker.protocol import FrameError, Progress
from pilotlight.worker.size import size_of

LOOK_S = 90.0
"""A disk that sleeps needs up to 20 s to turn again, and a GPU's driver, which is asked in the same go, a
minute (`gpu.LOOK_S`). What has not answered by then may never do so."""

AGAIN_S = 1.0
"""Those who come after that look so often whether it has."""

T = TypeVar("T")

log = structlog.get_logger()


class Loader:
    """Starts workers. Holds none: whoever asked owns what it gets."""

    def __init__(
        self,
        ladder: Ladder,
        costs: Costs,
        notices: Notices,
        load_s: float,
        archive: Archive | None = None,
        enough: Enough | None = None,
    ) -> None:
        """With an `archive` conversations outlive the workers; with `enough` it is found out how many threads
        are."""
        self._enough = enough
        self._ladder = ladder
        self._costs = costs
        self._notices = notices
        self._load_s = load_s
        self._archive = archive
        self._looking: dict[int, tuple[Path, float]] = {}
        """Threads that are at a model's files, by their ids, and since when."""

    async def load(
        self,
        model: Model,
        progress: Callable[[Progress], None],
        measures_threads: bool = False,
        spawned: Callable[[int], None] = lambda pid: None,
    ) -> Worker:
        """A worker with the model loaded, and how many threads are enough measured if that `measures_threads`
        and it is not known. `spawned` hears the pid of each process that tries. Raises `WorkerFailed`,
        `Unreachable`, `RuntimeMissing` or `DoesNotFit`; leaves no process then.
        """
        if (cost := await self._in_time(model, partial(self._refuse_hostile, model))) is not None:
            if cost.refusal:
                raise DoesNotFit(cost.refusal, param="model")
            if cost.context != model.context:
                log.info("context made to fit", model=model.name, context=cost.context, memory=model.memory)
            model = replace(model, context=cost.context)
        crashes: list[str] = []
        kills = oom.kills()
        for mode in self._ladder.modes(model.runtime):
            try:
                worker = await self._try(model, mode, progress, measures_threads, spawned)
            except WorkerEndedError as end:
                if end.crash is None:
                    raise oom.failure(model.name, end, kills, " while loading") from end
                if end.is_import:
                    # The file is not to blame, and a safer mode imports the same.
                    raise RuntimeMissing(
                        f"{model.name}: {model.runtime} cannot be used here: importing its library crashed "
                        f"({end.crash}); `pilotlight doctor` says how to mend it"
                    ) from end
                log.error("worker crashed while loading", model=model.name, mode=mode, crash=end.crash)
                crashes.append(f"{mode}: {end.crash}")
                continue
            if crashes:
                self._ladder.remember(model.runtime, mode, f"{', '.join(crashes)} while loading {model.name}")
            self._tell(model.runtime)
            return worker
        raise WorkerFailed(
            f"{model.name}: native code crashed while loading, in every mode ({', '.join(crashes)}); "
            "the file is damaged or not supported by this version of the runtime"
        )

    def cost(self, model: Model) -> Cost | None:
        """What the model's worker holds, once it was looked at."""
        return self._costs.known(model)

    def enough_threads(self, model: str) -> int:
        """That compute one answer nearly as fast as any number of them; 0 if that is not known."""
        return 0 if self._enough is None else self._enough.known(model)

    def may_measure(self, model: str) -> bool:
        """Its worker is to find that out now; `measured` follows."""
        return self._enough is not None and self._enough.ask(model)

    async def measured(self, model: Model, info: WorkerInfo) -> None:
        """Keep what it found out."""
        assert self._enough is not None, "nobody has asked"
        if (clock := self._enough.answer(model.name, info.enough_threads)) is not None:
            with suppress(OSError, Unreachable):  # the file has changed since, or its disk has gone
                await self._in_time(model, partial(self._enough.record, model, info.mode, clock))

    async def look_at(self, model: Model) -> None:
        """Find out what the model will cost, if that can be known. What is wrong with it its load says.

        A disk may never answer: who has others waiting gives it `LOOK_S`.
        """
        with suppress(WorkerFailed):
            await self._at_files(model, partial(self._refuse_hostile, model))

    def forget(self, model: str) -> None:
        """What the model's worker holds: nobody asks any more."""
        self._costs.forget(model)

    async def _in_time(self, model: Model, work: Callable[[], T]) -> T:
        """As `_at_files`. Raises `Unreachable` if they do not answer."""
        try:
            with anyio.fail_after(LOOK_S):
                return await self._at_files(model, work)
        except TimeoutError as exc:
            raise unanswered(model) from exc

    async def _at_files(self, model: Model, work: Callable[[], T]) -> T:
        """What a thread finds at the model's files. Who is cancelled does not wait for it; while one hangs no
        other one is sent there."""
        while self._hangs(model.path, now := anyio.current_time()):  # noqa: ASYNC110  # a thread cannot tell
            await anyio.sleep(AGAIN_S)
        return await anyio.to_thread.run_sync(self._there, model.path, now, work, abandon_on_cancel=True)

    def _hangs(self, path: Path, now: float) -> bool:
        return any(at == path and now - since >= LOOK_S for at, since in list(self._looking.values()))

    def _there(self, path: Path, now: float, work: Callable[[], T]) -> T:
        # Said here, not by who sends the thread: one that is given up before it begins never runs.
        self._looking[threading.get_ident()] = path, now
        try:
            return work()
        finally:
            del self._looking[threading.get_ident()]

    def _refuse_hostile(self, model: Model) -> Cost | None:
        """Before native code sees such a file: its cost, if that can be known. Raises `WorkerFailed`."""
        try:
            return self._costs.estimate(model)
        except HeaderError as exc:
            raise WorkerFailed(f"{model.name}: {exc}") from exc
        except OSError as exc:
            # The worker says it better: it knows what a model is.
            log.info("cost unknown", model=model.name, error=str(exc))
            return None

    def _loading(self, model: Model, mode: str) -> Loading:
        try:
            return self._costs.loading(model, mode)
        except (HeaderError, OSError):  # the worker says it better
            return model.loading

    def _measure(self, model: Model, mode: str, pid: int) -> None:
        if (size := size_of(pid)) is not None:
            with suppress(HeaderError, OSError):  # the file has changed since
                self._costs.record(model, mode, size)

    async def _try(
        self,
        model: Model,
        mode: str,
        progress: Callable[[Progress], None],
        measures_threads: bool,
        spawned: Callable[[int], None],
    ) -> Worker:
        try:
            loading = await self._in_time(model, partial(self._loading, model, mode))
            # Broken off in the middle, nobody would own the process.
            with anyio.CancelScope(shield=True):
                worker = await Worker.spawn(replace(model, loading=loading))
        except OSError as exc:
            raise WorkerFailed(f"{model.name}: cannot start a worker process: {exc.strerror}") from exc
        try:
            spawned(worker.pid)
            await self._look_at_threads(model, mode)
            measures = measures_threads and self.may_measure(model.name)
            archive = await self._archive_of(model)
            info = await worker.load(mode, progress, self._load_s, archive, measures)
            if measures:
                await self.measured(model, info)
            with suppress(Unreachable):  # its file is not needed any more
                await self._in_time(model, partial(self._measure, model, mode, worker.pid))
        except BaseException as exc:
            worker.kill()
            await worker.stop()
            match exc:
                case LoadRefusedError():
                    raise _refused(model, exc) from exc
                case TimeoutError():
                    raise WorkerFailed(f"{model.name}: the worker did not answer in time") from exc
                case FrameError():
                    raise WorkerFailed(f"{model.name}: its settings cannot be sent: {exc}") from exc
            raise
        return worker

    async def _look_at_threads(self, model: Model, mode: str) -> None:
        if self._enough is not None and model.capabilities.live_threads:
            with suppress(OSError, Unreachable):  # its load says it better
                await self._in_time(model, partial(self._enough.look, model, mode))

    async def _archive_of(self, model: Model) -> Archive | None:
        """Marked with what the model's files are now; None where that cannot be told."""
        if self._archive is None:
            return None
        try:
            digest = await self._in_time(model, partial(digest_of, model))
        except (OSError, Unreachable):
            return None
        return replace(self._archive, digest=digest)

    def _tell(self, runtime: str) -> None:
        """Raise the notice of a safe mode as long as it stands."""
        code = f"safe_mode_{runtime}"
        outcome = self._ladder.outcome(runtime)
        if outcome is None:
            self._notices.clear(code)
            return
        text = (
            f"{runtime} runs in mode {outcome.mode}: native code crashed ({outcome.reason}). "
            f"Cost: {COSTS[outcome.mode]}. `pilotlight doctor` says what to do."
        )
        self._notices.raise_(code, Severity.WARNING, text)


def unanswered(model: Model) -> Unreachable:
    """Why nothing is known of what it costs."""
    return Unreachable(f"{model.name}: its file could not be looked at within {LOOK_S:.0f} s", param="model")


def _refused(model: Model, refusal: LoadRefusedError) -> Error:
    kind = RuntimeMissing if refusal.missing else WorkerFailed
    return kind(f"{model.name}: {refusal}")
