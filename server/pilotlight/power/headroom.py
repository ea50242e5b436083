"""How near the heat is at which the system slows down, as one number on Android's scale, and where it is
going.

The definition is that of Android's `getThermalHeadroom` (AOSP, TemperatureWatcher of ThermalManagerService):
0 is `SPAN` degrees below the temperature of severe throttling, 1 is there; the forecast continues the
straight line through the last samples. Pure arithmetic; knows no sensor."""

from collections import deque
from operator import mul

from pilotlight.power.reading import ThermalLevel

SPAN = 30.0
"""Degrees below severe throttling at which headroom is 0."""

NUM_SAMPLES = 30
FEWEST_SAMPLES = 3

LONGEST_GAP_S = 10.0
"""After such a pause the samples before it tell nothing of where it is going; Android forgets them, too."""

FORECAST_S = 30.0

WARM = 0.5
"""Below this headroom a limit on the clock is not for heat, but somebody's wish."""

BANDS = ((1.0, ThermalLevel.CRITICAL), (0.9, ThermalLevel.SERIOUS), (0.75, ThermalLevel.FAIR))


def headroom(celsius: float, severe: float) -> float:
    """0 and more; `severe` is the temperature, in degrees, at which throttling is severe."""
    return max(0.0, (celsius - (severe - SPAN)) / SPAN)


def level(value: float) -> ThermalLevel:
    """The band that this headroom is in."""
    return next((name for least, name in BANDS if value >= least), ThermalLevel.NOMINAL)


class Trend:
    """The last samples of one sensor, a second or two apart, and the line through them."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=NUM_SAMPLES)

    def add(self, at: float, celsius: float) -> None:
        """A sample; `at` is in seconds. One that is not later than the last is left out."""
        if self._samples:
            since = at - self._samples[-1][0]
            if since <= 0:
                return
            if since > LONGEST_GAP_S:
                self._samples.clear()
        self._samples.append((at, celsius))

    def slope(self) -> float | None:
        """Degrees per second, by least squares; None of fewer than three samples."""
        if len(self._samples) < FEWEST_SAMPLES:
            return None
        (first, origin), count = self._samples[0], len(self._samples)
        xs = [at - first for at, _ in self._samples]
        ys = [celsius - origin for _, celsius in self._samples]
        mean_x = sum(xs) / count
        spread: float = sum(map(mul, xs, xs)) - count * mean_x * mean_x
        together: float = sum(map(mul, xs, ys)) - mean_x * sum(ys)
        return together / spread

    def forecast(self, seconds: float) -> float | None:
        """Degrees in so many seconds, if it goes on like this; None of fewer than three samples."""
        slope = self.slope()
        return None if slope is None else self._samples[-1][1] + slope * seconds
