"""A loader and workers that keep the promises of the real ones, without processes: a test plays the child."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from pilotlight.core import Cost, Model, WorkerInfo
from pilotlight.errors import Error
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.worker.handle import Said, WorkerEndedError
from pilotlight.worker.priority import Priority
from pilotlight.worker.protocol import (
    Cancel,
    Event,
    Generate,
    Inspect,
    Progress,
    Saved,
    Step,
    ToWorker,
    encode,
)


def model(name: str = "a") -> Model:
    return Model(name, Path(f"/{name}.gguf"), runtime="echo", capabilities=CAPABILITIES["echo"])


def info(parallel: int) -> WorkerInfo:
    return WorkerInfo(
        pid=os.getpid(),
        runtime="echo",
        version="1",
        mode="full",
        context=64,
        context_trained=64,
        parallel=parallel,
        threads=8,
        vocab=1,
        description="fake",
        bytes_model=0,
        num_parameters=0,
        has_chat_template=True,
        load_s=0.0,
        capabilities=CAPABILITIES["echo"],
    )


class FakeWorker:
    """`worker.handle.Worker`, driven by the test."""

    def __init__(self, parallel: int) -> None:
        self.info = info(parallel)
        self.pid = os.getpid()
        self.sent: list[ToWorker] = []
        self.priorities: list[Priority] = []
        self.is_stopped = False
        self.can_save = False
        self.is_finishing = False
        self._on_message: Callable[[Said], None] | None = None
        self._end: WorkerEndedError | None = None
        self._ended = anyio.Event()
        self.inspected = anyio.Event()
        """It was asked for its state."""

    def send(self, message: ToWorker) -> None:
        encode(message)
        self.sent.append(message)
        if isinstance(message, Inspect):
            self.inspected.set()

    def set_priority(self, priority: Priority) -> None:
        self.priorities.append(priority)

    async def run(self, on_message: Callable[[Said], None]) -> WorkerEndedError:
        self._on_message = on_message
        await self._ended.wait()
        return self._end or WorkerEndedError("stopped")

    def finish(self) -> bool:
        self.is_finishing = self.can_save
        return self.can_save

    async def stop(self, *, saves: bool = False) -> None:
        self.is_stopped = True
        self._ended.set()

    def kill(self) -> None:
        self._ended.set()

    # --- for the test ---

    def say(self, *events: Event) -> None:
        assert self._on_message is not None
        self._on_message(Step(events))

    def tell(self, state: Said) -> None:
        assert self._on_message is not None
        self._on_message(state)

    def save(self, count: int) -> None:
        """As it was asked to, and end."""
        assert self.is_finishing
        self.tell(Saved(count, 100 * count))
        self.die("worker exited with 0")

    def die(self, why: str = "worker died of SIGKILL") -> None:
        self._end = WorkerEndedError(why)
        self._ended.set()

    @property
    def generates(self) -> list[Generate]:
        return [message for message in self.sent if isinstance(message, Generate)]

    @property
    def cancels(self) -> list[int]:
        return [message.id for message in self.sent if isinstance(message, Cancel)]


class FakeLoader:
    """`registry.loader.Loader`: every load gives a new worker, or the `error`, as soon as it `may_end`."""

    def __init__(self, parallel: int = 2) -> None:
        self.parallel = parallel
        self.error: Error | None = None
        self.may_end = anyio.Event()
        self.may_end.set()
        self.workers: list[FakeWorker] = []
        self.measured_at_load: list[bool] = []
        """Whether each was to find out how many threads are enough."""
        self.enough = 0
        self.may_ask = True
        self.models: list[Model] = []
        """As each was asked for."""
        self.looked_at: list[Model] = []
        """As each was found."""
        self.starter = os.getpid()
        """The process that was spawned, which may only start the worker."""
        self.looked_at_before: list[bool] = []
        """Whether each that was loaded had been looked at as it was."""
        self.forgotten: list[str] = []
        self.looks: Iterator[int] = iter(())
        """How many turns of the event loop each look at a model takes, if not one."""
        self.dead: set[Path] = set()
        """Whose disk never answers."""

    async def load(
        self,
        model: Model,
        progress: Callable[[Progress], None],
        measures_threads: bool,
        spawned: Callable[[int], None],
    ) -> FakeWorker:
        spawned(self.starter)
        progress(Progress(0.5))
        self.measured_at_load.append(measures_threads)
        self.models.append(model)
        self.looked_at_before.append(model in self.looked_at)
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        self.workers.append(FakeWorker(self.parallel))
        return self.workers[-1]

    def enough_threads(self, model: str) -> int:
        return self.enough

    def may_measure(self, model: str) -> bool:
        return self.may_ask

    async def measured(self, model: Model, info: WorkerInfo) -> None:
        self.enough = info.enough_threads
        await checkpoint()

    async def look_at(self, model: Model) -> None:
        if model.path in self.dead:
            await anyio.sleep_forever()
        for _ in range(next(self.looks, 1)):
            await checkpoint()
        self.looked_at.append(model)

    def forget(self, model: str) -> None:
        self.forgotten.append(model)

    def cost(self, model: Model) -> Cost | None:
        return None
