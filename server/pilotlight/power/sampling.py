"""The one task that reads the machine: every second while there is work, a few times after its end if
something depends on it, once when the machine says that it has changed or somebody asks, else never.

Looking is a matter of files and calls that may block, so it is done in a thread, one look at a time, and one
that takes too long is given up: what was known gets older then, and counts as unknown once it is `STALE_S`
old.
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Protocol

import anyio
import structlog
from anyio import to_thread

from pilotlight.power import slowdown
from pilotlight.power.finding import FIELDS, Finding, Known, Missing, assemble
from pilotlight.power.reading import Confidence, Reading
from pilotlight.registry.pressure import Level

PERIOD_S = 1.0
"""The definition of headroom wants a sample each second."""

FRESH_S = 2.0
"""A reading of this age needs no other before something is decided."""

SOONEST_S = 0.2
"""After one look, before another one that somebody wants sooner than in a second."""

FIRST_S = 0.05
"""What a first decision waits for a reading at most; where files answer at once it is a millisecond."""

SETTLED_S = 3.0
"""After the machine said that it has changed: adapter and battery do not tell at the same time, and a plug
that is moved is not pulled."""

SLOWEST_S = 1.0
STALE_S = 10.0

ANSWERS = "our own answers"

UNREAD = Reading(unknown=dict.fromkeys(FIELDS, "not read yet"))

log = structlog.get_logger()


class Machine(Protocol):
    """Something to look at; see `linux.Linux`."""

    def look(self, now: float, pids: Collection[int]) -> Sequence[Finding]:
        """All findings. `pids` are our own processes. Blocks; called in one thread at a time."""


class Sampler:
    """Owns the last reading. All methods are called in the event loop."""

    def __init__(
        self,
        machine: Machine,
        pids: Callable[[], Collection[int]],
        slower: Callable[[Reading], float | None],
    ) -> None:
        self.last = UNREAD
        """However old it is."""
        self._machine = machine
        self._pids = pids
        self._watchers: list[Callable[[Reading, float], None]] = []
        self._slowdown = slower
        self._memory = Level.NONE
        self._is_working = False
        self._is_asked = False
        self._looking = threading.Lock()
        self._place = anyio.CapacityLimiter(1)
        """Of a thread that looks: the places that others wait for may all be taken."""
        self._due = 0.0
        self._looked_at = 0.0
        self._delays: Callable[[], Iterable[float]] = lambda: ()
        self._later: list[float] = []
        """When to look though there is no work."""
        self._settled = math.inf
        """The same, because the machine has changed."""
        self._wake = anyio.Event()
        self._sleeps_until = -math.inf
        self._told = anyio.Event()

    # --- for who decides ---

    async def begin(self) -> None:
        """There is work from now on; returns with a fresh reading, or after `FIRST_S`. Nothing to do if there
        was work before."""
        if not self._is_working:
            self._is_working, self._later = True, []
            self._hasten()
            await self.fresh(FIRST_S)

    def end(self) -> None:
        """There is no work any more: no timer and no look, besides those for `look_later`."""
        if self._is_working:
            self._is_working = False
            fresh_at = anyio.current_time() - FRESH_S
            self._later = [fresh_at + delay for delay in self._delays() if delay > FRESH_S]
            self._hasten()

    def hurry(self) -> None:
        """Something may have changed: look soon, if there is work."""
        if self._is_working:
            self._due = min(self._due, max(anyio.current_time(), self._looked_at + SOONEST_S))
            self._hasten()

    def look_once_settled(self) -> None:
        """The machine says that it has changed: look soon if there is work, else once it has said nothing for
        `SETTLED_S`."""
        if self._is_working:
            self.hurry()
        else:
            self._settled = anyio.current_time() + SETTLED_S
            self._hasten()

    def press(self, level: Level) -> None:
        """The kernel says that memory is so short."""
        self._memory = level

    async def fresh(self, within_s: float = SLOWEST_S) -> Reading:
        """The reading of the last `FRESH_S`; looks if there is none, and waits for that so long at most."""
        if anyio.current_time() - self.last.at > FRESH_S or self.last is UNREAD:
            self._is_asked = True
            self._wake.set()
            with anyio.move_on_after(within_s):
                await self._told.wait()
        return self.reading()

    def look_later(self, delays: Callable[[], Iterable[float]]) -> None:
        """Ask at each end of work how many seconds after it a fresh reading has to be there."""
        self._delays = delays

    def watch(self, on_look: Callable[[Reading, float], None]) -> None:
        """Have it called after every look, also one that failed, with what is known then and the time."""
        self._watchers.append(on_look)

    def reading(self) -> Reading:
        """What is known now. What is too old is not."""
        age = anyio.current_time() - self.last.at
        if self.last is UNREAD or age <= STALE_S:
            return self.last
        return Reading(at=self.last.at, unknown=dict.fromkeys(FIELDS, f"not read for {age:.0f} s"))

    # --- life ---

    async def run(self) -> None:
        """Look when there is reason to, until cancelled."""
        while True:
            due = self._next_due
            if self._is_asked or anyio.current_time() >= due:
                await self._sample()
                continue
            self._wake, self._sleeps_until = anyio.Event(), due
            with anyio.CancelScope(deadline=due):  # without anything due there is no timer
                await self._wake.wait()

    @property
    def _next_due(self) -> float:
        return self._due if self._is_working else min([*self._later, self._settled])

    def _hasten(self) -> None:
        """Wake up if the next look is due sooner than before. A timer that is early by now harms less than
        waking at both ends of every short answer."""
        if self._next_due < self._sleeps_until:
            self._wake.set()

    async def _sample(self) -> None:
        now = anyio.current_time()
        self._looked_at, self._due = now, now + PERIOD_S
        self._later = [at for at in self._later if at > now]
        self._settled = self._settled if self._settled > now else math.inf
        findings = await self._look(now)
        if findings is not None:
            self.last = assemble(
                [*findings, *self._pressure(), *self._slower(assemble(findings, now))], now, local_minute()
            )
        self._is_asked = False
        told, self._told = self._told, anyio.Event()
        told.set()
        for on_look in self._watchers:
            on_look(self.reading(), anyio.current_time())

    async def _look(self, now: float) -> Sequence[Finding] | None:
        """None if it took too long. A thread that hangs in a driver is left behind, and no other one looks
        meanwhile."""
        pids = tuple(self._pids())
        with anyio.move_on_after(SLOWEST_S):
            return await to_thread.run_sync(
                self._look_there, now, pids, abandon_on_cancel=True, limiter=self._place
            )
        log.warning("the machine's sensors do not answer", waited_s=SLOWEST_S)
        return None

    def _look_there(self, now: float, pids: Collection[int]) -> Sequence[Finding] | None:
        # Said here, not by who sends the thread: one that is given up before it begins never runs.
        if not self._looking.acquire(blocking=False):
            return None
        try:
            return self._machine.look(now, pids)
        finally:
            self._looking.release()

    def _pressure(self) -> list[Finding]:
        return [Known("memory", self._memory, "psi trigger")] if self._memory else []

    def _slower(self, reading: Reading) -> list[Finding]:
        slower = self._slowdown(reading)
        if slower is None:
            return [Missing("slowdown", "too little was generated to compare")]
        heat = slowdown.level(slower)
        found: list[Finding] = [Known("slowdown", slower, ANSWERS, Confidence.DERIVED)]
        return [*found, Known("thermal", heat, ANSWERS, Confidence.GUESSED)] if heat else found


def local_minute() -> int:
    """Of the day, now, where the machine is now."""
    if sys.platform != "win32":
        time.tzset()  # else the time zone is that in which the process has begun
    now = datetime.now()
    return now.hour * 60 + now.minute
