"""What processors' clocks follow, for what is measured once for each: a word, and whether they are steady."""

from collections.abc import Callable
from enum import StrEnum

from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.power.slowdown import OTHERS


class Clock(StrEnum):
    """What sets the clocks, as far as it's known; nothing known is mains."""

    MAINS = "mains"
    BATTERY = "battery"
    SAVING = "saving"


class Clocks:
    """Those of the machine that `reading` tells of."""

    def __init__(self, reading: Callable[[], Reading]) -> None:
        self._reading = reading

    @property
    def now(self) -> Clock:
        reading = self._reading()
        if reading.is_saving:
            return Clock.SAVING
        return Clock.BATTERY if reading.supply is Supply.BATTERY else Clock.MAINS

    @property
    def are_steady(self) -> bool:
        """Neither heat nor other programs take part of them now, as far as is known."""
        reading = self._reading()
        is_hot = reading.is_throttled or (reading.thermal or 0) >= ThermalLevel.SERIOUS
        return not is_hot and (reading.load or 0) <= OTHERS
