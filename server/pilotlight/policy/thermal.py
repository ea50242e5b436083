"""How much of the time background work may run, so that the next interactive answer runs at cold speed.

A pure controller: readings come in, a duty goes out. With a temperature, the forecast headroom is kept as
far below the system's throttling as one answer heats (`Reserve`), by a proportional and an integral part.
Without one, duty is halved while we are slower than when cold, and grows again slowly. Where nothing is
known, nothing is restricted. The constants were found with `pilotlight simulate`; LOG.md says what others
did.
"""

import math
from dataclasses import dataclass, field

from msgspec import Struct

from pilotlight.policy.reserve import Reserve
from pilotlight.power.headroom import WARM
from pilotlight.power.reading import Confidence, Reading

PROPORTIONAL = 4.0
"""Duty per headroom. With the integral part alone, a chassis that takes 20 min to warm makes duty swing."""

INTEGRAL = 0.02
"""Duty per headroom and second."""

LEAST_DUTY = 0.05
"""Background work goes on, however slowly; only the system's own throttling stops it."""

STEP = 0.05
"""A smaller change of duty is not worth a message to the workers."""

MARGIN = 0.02
"""Headroom beside the reserve: half a degree."""

LESSON = 0.04
"""More of it each time that the system begins to throttle, or as much as it was early: the sensor is late, an
answer heats more than was thought, or the governor slows down well below where it is said to
(`power_allocator` does). What is only counted may have been a spike of milliseconds in one core, of which the
temperature of a second tells nothing."""

LESSON_S = 1800.0
"""Over which a lesson is forgotten at least: so there are two an hour at most, in the long run."""

PRICE = 200.0
"""Seconds over which it is forgotten, for each that the system throttled then: in the long run it does for a
two hundredth of the time at most, and a governor that throttles for minutes is kept away from for hours."""

LONGEST_LESSON_S = 20_000.0

SETTLE_S = 30.0
"""After an answer, until the forecast no longer continues its rise."""

SMOOTHING_S = 8.0
"""Over which headroom and its forecast are averaged: a sensor that rounds to degrees makes jumps of 0.03."""

MOST_MARGIN = 1 - WARM

SLOW = 0.1
"""Slowdown at which duty is halved, if that is all that is known."""

RECOVERY = 0.05
"""What duty grows by otherwise, every `SETTLE_S`."""

LONGEST_GAP_S = 10.0
"""A longer time without readings counts as so long, and no answer lasts beyond it."""


class Answer(Struct, frozen=True):
    """An interactive answer that is being generated."""

    began: float
    headroom: float
    """Before it."""
    rested: float
    """The part of the time that background work rested before it."""


@dataclass(slots=True)
class Thermal:
    """Owns the duty of background work, and what was learned of the machine."""

    _reserve: Reserve = field(default_factory=Reserve)
    _margin: float = MARGIN
    _wanted: float = 1.0
    _sum: float = 1.0
    """The integral part."""
    _is_stopped: bool = False
    _was_throttled: bool = False
    _throttled_at: float = -math.inf
    _throttled_s: float = 0.0
    """How long it was throttled, the last time."""
    _headroom: float | None = None
    _forecast: float | None = None
    """Both without the sensor's noise."""
    _answer: Answer | None = None
    _answered_at: float = -math.inf
    _turned_at: float = -math.inf
    """When duty was last changed for a slowdown."""
    _last: Reading | None = None

    @property
    def duty(self) -> float:
        """The part of the time that background work may run: 1, or less in steps, or 0 while it is
        stopped."""
        return 0.0 if self._is_stopped else self._wanted

    def on_reading(self, reading: Reading, *, is_answering: bool) -> float:
        """The new duty; `is_answering` if interactive work runs."""
        if reading.headroom is not None:
            self._learn(reading, reading.headroom, is_answering)
            self._steer(reading, reading.headroom, is_answering)
        elif reading.slowdown is not None:
            self._yield_to(reading.slowdown, reading.at)
        else:
            self._wanted, self._is_stopped = 1.0, False
        self._last = reading
        return self.duty

    @property
    def target(self) -> float:
        """The headroom that background work may take the machine to."""
        return 1 - self._margin - self.reserve

    @property
    def reserve(self) -> float:
        """Of it, what is kept for the next answer."""
        return self._reserve.expected(1 - self._wanted)

    # --- what answers add ---

    def _learn(self, reading: Reading, headroom: float, is_answering: bool) -> None:
        if not is_answering or self._passed(reading.at) >= LONGEST_GAP_S:
            self._end_answer()
        self._watch_throttling(reading, headroom)
        self._headroom = self._smoothed(self._headroom, headroom, reading.at)
        if is_answering:
            answer = self._answer or Answer(reading.at, self._headroom, 1 - self.duty)
            self._answer = answer
            if not self._throttled_since(answer):
                self._reserve.learn(answer.rested, reading.at - answer.began, headroom - answer.headroom)

    def _end_answer(self) -> None:
        """When it was last seen, if there is one. Nobody looks while nothing runs: the next reading may come
        hours later, when the machine has cooled."""
        if (answer := self._answer) is None:
            return
        assert self._last is not None, "a reading has begun it"
        if not self._throttled_since(answer):
            self._reserve.ended(self._last.at - answer.began)
        self._answer, self._answered_at = None, self._last.at

    def _throttled_since(self, answer: Answer) -> bool:
        """Then it took longer and heated less than it would have."""
        return self._throttled_at >= answer.began

    def _watch_throttling(self, reading: Reading, headroom: float) -> None:
        passed = self._passed(reading.at)
        self._margin = max(MARGIN, self._margin - LESSON * passed / self._remembered_s)
        trust = reading.confidence("is_throttled")
        is_seen = trust is not Confidence.GUESSED
        is_throttled = bool(reading.is_throttled) and headroom >= WARM and (is_seen or self._was_throttled)
        if is_throttled:
            self._throttled_at = reading.at
            if not self._was_throttled:
                early = 1 - headroom if trust is Confidence.MEASURED else 0.0
                self._margin = min(MOST_MARGIN, max(self._margin + LESSON, early))
                self._throttled_s = 0.0
            if is_seen:
                self._throttled_s += passed
        self._was_throttled = is_throttled

    @property
    def _remembered_s(self) -> float:
        return min(LONGEST_LESSON_S, max(LESSON_S, PRICE * self._throttled_s))

    # --- what background work may ---

    def _steer(self, reading: Reading, headroom: float, is_answering: bool) -> None:
        forecast = headroom if reading.forecast is None else reading.forecast
        self._forecast = self._smoothed(self._forecast, forecast, reading.at)
        room = self.target - self._forecast
        if not is_answering:
            self._stop_or_go(room)
            if reading.at - self._answered_at > SETTLE_S:
                self._sum = _clamp(self._sum + INTEGRAL * room * self._passed(reading.at), 0.0)
        self._set(_clamp(self._sum + PROPORTIONAL * room, LEAST_DUTY))

    def _stop_or_go(self, room: float) -> None:
        if self._is_stopped:
            self._is_stopped = self._was_throttled or room <= 0
        else:
            self._is_stopped = self._was_throttled

    def _set(self, duty: float) -> None:
        if abs(duty - self._wanted) >= STEP or duty in (LEAST_DUTY, 1.0):
            self._wanted = duty

    def _yield_to(self, slowdown: float, now: float) -> None:
        """Of temperature nothing is known."""
        self._is_stopped = False
        if now - self._turned_at < SETTLE_S:
            return
        self._turned_at = now
        duty = self._wanted / 2 if slowdown > SLOW else self._wanted + RECOVERY
        self._wanted = _clamp(duty, LEAST_DUTY)

    def _smoothed(self, before: float | None, value: float, now: float) -> float:
        part = min(1.0, self._passed(now) / SMOOTHING_S)
        return value if before is None else before + part * (value - before)

    def _passed(self, now: float) -> float:
        """Seconds since the last reading."""
        return 0.0 if self._last is None else min(now - self._last.at, LONGEST_GAP_S)


def _clamp(duty: float, least: float) -> float:
    return min(1.0, max(least, duty))
