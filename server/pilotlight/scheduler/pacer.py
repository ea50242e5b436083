"""Leaves room for the next answer: holds background work, in bursts, as the thermal controller says.

It hears every reading, and so is asked once a second while there is work, and never otherwise. If readings
fail to come, what is known runs out, and background work goes on: unknown never restricts.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from pilotlight.policy.pace import Bursts
from pilotlight.policy.pacing import Pacing, pacing
from pilotlight.policy.thermal import Thermal
from pilotlight.power.reading import Reading
from pilotlight.power.sleep import slept_s

LONGEST_TICK_S = 2.0
"""A longer time between two readings counts as so long: nobody saw what ran."""


class Work(Protocol):
    """What runs in the workers; `scheduler.loop.Loop` is it."""

    @property
    def is_answering(self) -> bool:
        """Interactive requests run."""

    @property
    def has_yielding(self) -> bool:
        """Others do, or are held."""

    @property
    def num_yielding_tokens(self) -> int:
        """That those have made, ever."""

    def rest(self, is_resting: bool) -> None:
        """Hold what yields, or let it go on."""


class Pacer:
    """Owns the controller; `is_free` says that nothing may be restricted now, by the user's wish, and `tell`
    hears of each rest that begins."""

    def __init__(
        self,
        work: Work,
        is_free: Callable[[], bool],
        tell: Callable[[], None] = lambda: None,
        slept_s: Callable[[], float] = slept_s,
    ) -> None:
        self.duty = 1.0
        """The part of the time that background work may run."""
        self._work = work
        self._is_free = is_free
        self._tell = tell
        self._slept_s = slept_s
        self._slept = slept_s()
        """When the last reading was made."""
        self._thermal = Thermal()
        self._bursts = Bursts()
        self._is_resting = False
        self._last = Reading()
        self._at: float | None = None
        self._num_tokens = 0

    def on_reading(self, reading: Reading, now: float) -> None:
        """Once a second while there is work; the reading may be an old one."""
        self._note_run(now)
        self._slept = self._slept if reading.at == self._last.at else self._slept_s()
        # A machine cools in its sleep: to the controller that is a time without readings.
        timed = replace(reading, at=reading.at + self._slept)
        duty = self._thermal.on_reading(timed, is_answering=self._work.is_answering)
        self.duty = 1.0 if self._is_free() else duty
        was_resting, self._is_resting = self._is_resting, self._bursts.rests(now, self.duty)
        if self._is_resting and not was_resting:
            self._tell()
        self._last = reading
        self._work.rest(self._is_resting)

    def pacing(self, now: float) -> Pacing:
        """For the person at the machine."""
        if self._is_free():
            return Pacing(1.0, False, "nothing is paced: the policy is off, or overridden")
        rest_left_s = self._bursts.rest_left_s(now, self.duty)
        return pacing(self._thermal, self._last, is_resting=self._is_resting, rest_left_s=rest_left_s)

    def _note_run(self, now: float) -> None:
        """What ran since the last reading."""
        num_tokens = self._work.num_yielding_tokens
        ran = self._work.has_yielding and not self._work.is_answering and not self._is_resting
        if ran and self._at is not None:
            self._bursts.ran(num_tokens - self._num_tokens, min(now - self._at, LONGEST_TICK_S))
        self._at, self._num_tokens = now, num_tokens
