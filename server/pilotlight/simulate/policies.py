"""What is done with background work: by our own controller, or, for contrast, as other programs do."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from pilotlight.policy.thermal import Thermal
from pilotlight.power.reading import Reading


@dataclass(frozen=True, slots=True)
class Orders:
    """To background work: the part of the time it may run (0: not at all), and whether sparingly."""

    duty: float = 1.0
    is_eco: bool = False


class Policy(Protocol):
    """Something that looks at the machine once a second."""

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        """What holds until the next reading."""


@dataclass(frozen=True, slots=True)
class Always:
    """The same orders whatever happens."""

    orders: Orders

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        return self.orders


@dataclass(slots=True)
class OnOff:
    """Stops at a temperature and goes on when it has cooled a little, as TThrottle and many scripts do."""

    stop: float = 0.95
    go: float = 0.90
    _duty: float = 1.0

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        assert reading.headroom is not None
        if reading.headroom >= self.stop:
            self._duty = 0.0
        elif reading.headroom < self.go:
            self._duty = 1.0
        return Orders(self._duty)


@dataclass(slots=True)
class Controlled:
    """Pilotlight's controller; without temperature it has only its own slowdown to go by."""

    has_temperature: bool = True
    _thermal: Thermal = field(default_factory=Thermal)

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        if not self.has_temperature:
            reading = replace(reading, celsius=None, headroom=None, forecast=None, is_throttled=None)
        return Orders(self._thermal.on_reading(reading, is_answering=is_answering), is_eco=True)


def policy(name: str) -> Policy:
    """A fresh one, which has seen nothing yet."""
    match name:
        case "none":
            return Always(Orders(duty=0.0))
        case "race":
            return Always(Orders())
        case "duty":
            return Always(Orders(duty=0.5))
        case "hysteresis":
            return OnOff()
        case "slowdown":
            return Controlled(has_temperature=False)
        case "pilotlight":
            return Controlled()
    raise AssertionError(f"there is no policy {name!r}")
