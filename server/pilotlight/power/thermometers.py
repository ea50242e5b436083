"""Linux: how hot the processors are, how near that is to throttling, and where it is going.

Owns a trend per sensor. The level follows the bands of `headroom`, with one exception: processors hold
themselves at the temperature where throttling begins, some of them all day, and come to no harm. So the level
is critical only well above that (`zones`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from pilotlight.power import headroom, zones
from pilotlight.power.files import Files, Remembered
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.headroom import Trend
from pilotlight.power.reading import Confidence, ThermalLevel
from pilotlight.power.zones import Sensor

COLDEST = 1.0
HOTTEST = 150.0
"""Degrees; 0 is what many a driver says that does not know."""


@dataclass(slots=True)
class _Watched:
    trend: Trend = field(default_factory=Trend)
    first: float | None = None
    has_moved: bool = False

    def add(self, at: float, celsius: float) -> None:
        self.trend.add(at, celsius)
        self.first = celsius if self.first is None else self.first
        self.has_moved = self.has_moved or celsius != self.first


class _Heat(Struct, frozen=True):
    """One sensor now; `ahead` is its headroom in `FORECAST_S`."""

    sensor: Sensor
    celsius: float
    headroom: float | None
    ahead: float | None

    @property
    def level(self) -> ThermalLevel | None:
        if self.headroom is None or self.sensor.severe is None:
            return None
        critical = self.sensor.critical
        is_critical = critical is not None and self.celsius >= critical
        highest = ThermalLevel.CRITICAL if is_critical else ThermalLevel.SERIOUS
        return min(highest, headroom.level(self.headroom))


class Thermometers:
    """The sensors that count, read together."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sensors = Remembered(lambda: zones.find(files))
        self._watched: dict[str, _Watched] = {}

    def read(self, now: float) -> Iterator[Finding]:
        """Temperature, headroom, its forecast and the level."""
        sensors = self._sensors.at(now)
        heats = [heat for sensor in sensors if (heat := self._heat(sensor, now)) is not None]
        if not heats:
            for name in ("celsius", "headroom", "forecast", "thermal"):
                yield Missing(
                    name, "no thermometer that counts has a value" if sensors else "there is no thermometer"
                )
            return
        hottest = max(heats, key=lambda heat: heat.celsius)
        yield Known("celsius", hottest.celsius, hottest.sensor.name)
        yield from _near(heats)

    def _heat(self, sensor: Sensor, now: float) -> _Heat | None:
        celsius = self._files.within(sensor.path, COLDEST, HOTTEST, 1e-3)
        if celsius is None:
            return None
        watched = self._watched.setdefault(sensor.path, _Watched())
        watched.add(now, celsius)
        if sensor.severe is None or (sensor.is_doubtful and not watched.has_moved):
            return _Heat(sensor, celsius, None, None)
        later = watched.trend.forecast(headroom.FORECAST_S)
        ahead = None if later is None else headroom.headroom(later, sensor.severe)
        return _Heat(sensor, celsius, headroom.headroom(celsius, sensor.severe), ahead)


def _near(heats: list[_Heat]) -> Iterator[Finding]:
    """Each the highest of all sensors."""
    rooms = [(heat.headroom, heat.sensor.name) for heat in heats if heat.headroom is not None]
    if not rooms:
        for name in ("headroom", "forecast", "thermal"):
            yield Missing(name, "it is not known at which temperature this machine slows down")
        return
    value, source = max(rooms)
    yield Known("headroom", value, source, Confidence.DERIVED)
    levels = [(heat.level, heat.sensor.name) for heat in heats if heat.level is not None]
    yield Known("thermal", *max(levels), Confidence.DERIVED)
    if forecasts := [(heat.ahead, heat.sensor.name) for heat in heats if heat.ahead is not None]:
        yield Known("forecast", *max(forecasts), Confidence.DERIVED)
    else:
        yield Missing("forecast", f"needs {headroom.FEWEST_SAMPLES} samples")
