"""What processors' clocks follow, for what is measured once for each: a word, and whether they are steady."""

from collections.abc import Callable
from enum import StrEnum
from typing import Self

from pilotlight.power.headroom import WARM
from pilotlight.power.reading import Reading, Supply, ThermalLevel

OTHERS = 0.1
"""While other programs use more of the processors than this, they may be the reason for what is slow."""


class Clock(StrEnum):
    """What sets the clocks, as far as it's known; nothing known is mains."""

    MAINS = "mains"
    BATTERY = "battery"
    SAVING = "saving"

    @classmethod
    def of(cls, reading: Reading) -> Self:
        """That the reading tells of."""
        if reading.is_saving:
            return cls.SAVING
        return cls.BATTERY if reading.supply is Supply.BATTERY else cls.MAINS


class Clocks:
    """Those of the machine that `reading` tells of; `is_lowered` says that we have them low ourselves."""

    def __init__(
        self, reading: Callable[[], Reading], is_lowered: Callable[[], bool] = lambda: False
    ) -> None:
        self._reading = reading
        self._is_lowered = is_lowered

    @property
    def now(self) -> Clock:
        return Clock.of(self._reading())

    @property
    def are_steady(self) -> bool:
        """Neither heat nor other programs nor ourselves take part of them now, as far as is known."""
        reading = self._reading()
        is_cool = reading.headroom is not None and reading.headroom < WARM
        is_throttled = bool(reading.is_throttled) and not is_cool
        is_hot = is_throttled or (reading.thermal or 0) >= ThermalLevel.SERIOUS
        return not is_hot and (reading.load or 0) <= OTHERS and not self._is_lowered()
