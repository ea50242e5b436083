"""The books of the loop: each model's worker and history, what it costs, and what there is for all of them.

Reads processes and the machine; decides nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import psutil

from pilotlight.core import MemoryStatus, Model, WorkerInfo
from pilotlight.registry import memory
from pilotlight.registry.budget import Budget, Room
from pilotlight.registry.estimate import Estimates
from pilotlight.scheduler.residency import Needs
from pilotlight.worker.handle import SAVE_LATE_S, SAVE_S, Worker
from pilotlight.worker.priority import Priority
from pilotlight.worker.protocol import Progress, SetThreads, Threads

MEASURE_EVERY_S = 1.0
"""How often a busy worker's memory is looked at, at most; a look takes 50 µs."""


NOT_BEGUN = Progress(0.0)


@dataclass(slots=True)
class Life:
    """From the start of a load to the end of its process: `end` it, wait for `gone`."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)
    is_ending: bool = False
    prompt_threads: int | None = None
    """Of its worker, see `SetThreads`; None: as many as compute an answer alone."""

    def end(self, worker: Worker | None, *, saves: bool) -> None:
        """Now, or once its worker has saved its conversations."""
        self.is_ending = True
        if saves and worker is not None and worker.finish():
            self.scope.deadline = anyio.current_time() + SAVE_S + SAVE_LATE_S
        else:
            self.scope.cancel()


@dataclass(slots=True)
class Pauses:
    """How often and how long what yields was paused in one model's workers."""

    num_sequences: int = 0
    """Paused now."""
    count: int = 0
    _paused_s: float = 0.0
    _since: float = 0.0

    def note(self, num_sequences: int, now: float) -> None:
        """So many are paused from now on."""
        if num_sequences and not self.num_sequences:
            self.count += 1
            self._since = now
        elif self.num_sequences and not num_sequences:
            self._paused_s += now - self._since
        self.num_sequences = num_sequences

    def seconds(self, now: float) -> float:
        """In all, with the pause that lasts."""
        return self._paused_s + (now - self._since if self.num_sequences else 0.0)


@dataclass(slots=True)
class Residence:
    """One model's worker, now and before."""

    model: Model | None = None
    """As it was when it was last asked for: the catalog may know it otherwise by now, or no more."""
    surveyed: Model | None = None
    """As it was when it was last found out what it takes to load it."""
    loaded: Model | None = None
    """As its worker has it, or is being told."""
    pid: int | None = None
    """Of its worker, also while that loads."""
    worker: Worker | None = None
    """Once it has loaded."""
    info: WorkerInfo | None = None
    life: Life | None = None
    progress: Progress = NOT_BEGUN
    measures_threads: bool = False
    """Its load finds out how many are enough, if that is not known."""
    restarts: int = 0
    error: str | None = None
    loads: int = 0
    load_s: float = 0.0
    evictions: Counter[str] = field(default_factory=Counter)
    measured_at: float = 0.0
    look_over: asyncio.TimerHandle | None = None
    """What is done once it has run nothing for a while."""
    pauses: Pauses = field(default_factory=Pauses)
    is_held: bool = False
    """Its worker was told to compute nothing that yields."""
    threads_told: SetThreads | None = None
    """The last that its worker heard of them."""
    threads: int = 0
    """That compute an answer alone, as its worker said itself."""
    priority: Priority = Priority.NORMAL
    """Of its worker, as the system was told."""
    saved: int = 0
    restored: int = 0

    @property
    def prompt_threads(self) -> int:
        """That compute answers side by side, as its worker said itself."""
        said = self.life.prompt_threads if self.life is not None else None
        return self.threads if said is None else said

    def note_threads(self, said: Threads) -> None:
        """They are so many from now on, until its worker ends."""
        assert self.life is not None, "nobody speaks who has ended"
        self.threads, self.life.prompt_threads = said.threads, said.prompt_threads

    @property
    def bytes_resident(self) -> int | None:
        """All that its worker holds, pages shared with others too; None without one."""
        memory = self._memory()
        return None if memory is None else memory[0]

    @property
    def bytes_private(self) -> int:
        """What its worker keeps from being free: the rest is files, which the system counts as free."""
        memory = self._memory()
        return 0 if memory is None else memory[0] - memory[1]

    def _memory(self) -> tuple[int, int] | None:
        """Resident, and of that shared."""
        if self.pid is not None:
            with suppress(psutil.Error, OSError):  # it has ended, or no descriptor is left to look with
                found = psutil.Process(self.pid).memory_info()
                return int(found.rss), int(getattr(found, "shared", 0))
        return None


class Books:
    """Owns the residences; asks `estimates` what a model costs, and tells them what it did cost."""

    def __init__(self, estimates: Estimates, budget: Budget) -> None:
        self._residences: dict[str, Residence] = {}
        self._estimates = estimates
        self._budget = budget

    def __getitem__(self, model: str) -> Residence:
        """Models come at run time, too."""
        at = self._residences.get(model)
        if at is None:
            at = self._residences[model] = Residence()
        return at

    def forget(self, model: str) -> None:
        """As if it had never been asked for."""
        self._residences.pop(model, None)
        self._estimates.forget(model)

    def items(self) -> Iterable[tuple[str, Residence]]:
        """Of all that were ever asked for."""
        return tuple(self._residences.items())

    @property
    def workers(self) -> list[Worker]:
        """All that are loaded."""
        return [at.worker for at in self._residences.values() if at.worker]

    def needs(self, model: Model) -> Needs:
        """What it takes to load it now."""
        num_bytes, refusal = self._estimates.estimate(model), self._estimates.refusal(model)
        return Needs(num_bytes, model.pin, model.keep_alive_s, refusal)

    def room(self) -> Room:
        """What workers may hold together."""
        reading = memory.read()
        held = sum(at.bytes_private for at in self._residences.values())
        return self._budget.room(reading, held)

    def status(self, charged: int) -> MemoryStatus:
        return MemoryStatus(self.room().now, charged)

    def is_due(self, model: str) -> bool:
        """Its memory was not looked at for a while."""
        return anyio.current_time() - self[model].measured_at > MEASURE_EVERY_S

    def measure(self, model: Model) -> int:
        """What its worker holds; remembered for the next load."""
        at = self[model.name]
        at.measured_at = anyio.current_time()
        num_bytes = at.bytes_resident or 0
        self._estimates.record(model, num_bytes)
        return num_bytes

    def record_killed(self, model: Model) -> None:
        """The system ended its worker for lack of memory."""
        self._estimates.record_killed(model)
