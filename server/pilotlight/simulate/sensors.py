"""What we are shown of a machine: its temperature late, with noise and in whole degrees, and our own
speed."""

import random
from collections import deque
from dataclasses import dataclass, field

from pilotlight.power.headroom import FORECAST_S, Trend, headroom, level
from pilotlight.power.reading import Reading, Supply, ThermalLevel

SLOWDOWN_TOKENS = 64.0
"""Over which our own rate is averaged."""


@dataclass(slots=True)
class Thermometer:
    """A sensor read once a second, `delay` readings late; `noise` is its standard deviation in K."""

    dice: random.Random
    noise: float = 0.3
    delay: int = 2
    quantum: float = 1.0
    _past: deque[float] = field(default_factory=deque)

    def read(self, celsius: float) -> float:
        self._past.append(celsius + self.dice.gauss(0, self.noise))
        if len(self._past) > self.delay + 1:
            self._past.popleft()
        return round(self._past[0] / self.quantum) * self.quantum


@dataclass(slots=True)
class Instruments:
    """Owns what readings are made of besides the moment: the trend, and how fast we were."""

    trip: float
    """Degrees Celsius at which the system throttles."""
    thermometer: Thermometer
    _trend: Trend = field(default_factory=Trend)
    _slowdown: float = 0.0

    def ran(self, tokens: float, slowdown: float) -> None:
        """So many tokens came so much slower (0 to 1) than they would have in the cold."""
        part = min(1.0, tokens / SLOWDOWN_TOKENS)
        self._slowdown += part * (slowdown - self._slowdown)

    def read(self, at: float, celsius: float, percent: float | None, *, is_throttled: bool) -> Reading:
        """Once a second. `percent` of the battery, or None on mains."""
        shown = self.thermometer.read(celsius)
        self._trend.add(at, shown)
        ahead = self._trend.forecast(FORECAST_S)
        near = headroom(shown, self.trip)
        return Reading(
            at=at,
            supply=Supply.AC if percent is None else Supply.BATTERY,
            percent=percent,
            celsius=shown,
            headroom=near,
            forecast=None if ahead is None else headroom(ahead, self.trip),
            # Where the machine switches itself off is not known, so nothing is critical; as in `power`.
            thermal=ThermalLevel.SERIOUS if is_throttled else min(level(near), ThermalLevel.SERIOUS),
            is_throttled=is_throttled,
            slowdown=self._slowdown,
        )
