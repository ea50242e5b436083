"""A worker that generates without computing: one stream at a time, as fast as its chip may go.

Interactive work goes first, and background work is paused meanwhile; alone, that works in the bursts of
`policy.pace`. There are no prompts to compute.
"""

from dataclasses import dataclass, field

from msgspec import Struct

from pilotlight.core import Request
from pilotlight.policy.pace import Bursts
from pilotlight.simulate.chip import Saving, Setting
from pilotlight.simulate.platforms import Platform
from pilotlight.simulate.policies import Orders

Speed = tuple[float, float, float, float]
"""Tokens per second, those had no governor interfered, watts of the machine, and the part of the threads."""


@dataclass(slots=True)
class Job:
    """A request that runs: the tokens it still wants, and when it was dispatched."""

    request: Request
    left: float
    began: float


class Work(Struct, frozen=True):
    """What was done in a step: so many tokens of one job, in so many seconds of it."""

    job: Job
    tokens: float
    seconds: float
    cold: float
    """Tokens per second, had no governor interfered."""
    watts: float
    """Of the machine meanwhile."""
    threads: float
    """That were busy, as a part of the most there are."""


@dataclass(slots=True)
class Worker:
    """Owns what runs."""

    platform: Platform
    _jobs: dict[str, Job] = field(default_factory=dict)
    _bursts: Bursts = field(default_factory=Bursts)
    _speeds: dict[tuple[Saving, float], Speed] = field(default_factory=dict)

    @property
    def is_answering(self) -> bool:
        """Interactive work runs."""
        return any(not job.request.yields for job in self._jobs.values())

    def begin(self, request: Request, tokens: int, now: float) -> None:
        self._jobs[request.id] = Job(request, tokens, now)

    def end(self, request_id: str) -> None:
        """It is done, or cancelled."""
        self._jobs.pop(request_id, None)

    def step(self, now: float, seconds: float, limit: float, orders: Orders) -> Work | None:
        """Let time pass; `limit` is the governor's, on the clock. None if nothing was generated."""
        job = min(self._jobs.values(), key=lambda job: job.request.rank, default=None)
        if job is None or (job.request.yields and self._bursts.rests(now, orders.duty)):
            return None
        work = self._work(job, seconds, limit, orders)
        job.left -= work.tokens
        if job.request.yields:
            self._bursts.ran(work.tokens, work.seconds)
        return work

    def _work(self, job: Job, seconds: float, limit: float, orders: Orders) -> Work:
        saving = orders.saving if job.request.yields else Saving.NONE
        rate, cold, watts, threads = self._speed(saving, limit)
        tokens = min(job.left, rate * seconds)
        return Work(job, tokens, tokens / rate, cold, watts, threads)

    def _speed(self, saving: Saving, limit: float) -> Speed:
        """Computed once of each."""
        if (saving, limit) not in self._speeds:
            chip, wanted = self.platform.chip, self.platform.setting(saving)
            setting = Setting(min(limit, wanted.clock), wanted.threads)
            rate, cold = chip.rate(setting), chip.rate(wanted)
            self._speeds[saving, limit] = rate, cold, chip.watts(setting), setting.threads
        return self._speeds[saving, limit]
