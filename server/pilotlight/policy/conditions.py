"""Questions about a reading that are answered yes or no: "on battery", "below 20 %", "between 22:00 and 7".

Each one asks whether things are at least so bad, so a worse reading never turns a yes into a no; only the
time of day is neither worse nor better. What is unknown, or no number, is a no. Pure.
"""

import math
from typing import Protocol

from msgspec import Struct

from pilotlight.power.headroom import BANDS, SPAN
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level as MemoryLevel

SUPPLIES = tuple(Supply)
"""From good to bad."""

BEGINS_AT = {level: headroom for headroom, level in BANDS}
"""The headroom at which each level begins, critical at the earliest."""

CRITICAL_ABOVE = 1 + 1 / SPAN
"""While headroom is above this, what was critical is not over. Where that begins depends on the sensor; many
machines hold themselves at 1 whenever they work, which is not critical."""

LOAD_SLACK = 0.1
"""Of the processors; what other programs use changes by that from one second to the next."""

DAY_MIN = 24 * 60


class Slack(Struct, frozen=True):
    """How much better it has to get before a yes becomes a no again.

    `battery` is in percent points, `thermal` in headroom, `load` a part of the processors.
    """

    battery: float = 0.0
    thermal: float = 0.0
    load: float = 0.0


NO_SLACK = Slack()


class Condition(Protocol):
    """One question."""

    @property
    def about(self) -> str:
        """The field of `Reading` it is about."""

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        """Whether it is so, or no better than the slack away from it."""

    def __str__(self) -> str:
        """As rules write it."""


class SupplyIs(Struct, frozen=True):
    """The power comes from this supply, or from a worse one."""

    least: Supply
    about = "supply"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        supply = reading.supply
        return supply is not None and SUPPLIES.index(supply) >= SUPPLIES.index(self.least)

    def __str__(self) -> str:
        return f"supply = {self.least.value!r}"


class BatteryBelow(Struct, frozen=True):
    """The batteries hold less than this, in percent."""

    percent: float
    about = "percent"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        percent = reading.percent
        return percent is not None and 0 <= percent <= 100 and percent < self.percent + slack.battery

    def __str__(self) -> str:
        return f"battery_below = {self.percent:g}"


class IsSaving(Struct, frozen=True):
    """The user wants power saved."""

    about = "is_saving"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        return reading.is_saving is True

    def __str__(self) -> str:
        return "saver = true"


class ThermalIs(Struct, frozen=True):
    """It is at least so hot."""

    least: ThermalLevel
    about = "thermal"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        if reading.thermal is not None and reading.thermal >= self.least:
            return True
        is_critical = self.least is ThermalLevel.CRITICAL
        bound = CRITICAL_ABOVE if is_critical else BEGINS_AT[self.least] - slack.thermal
        return slack.thermal > 0 and _is_above(reading.headroom, bound)

    def __str__(self) -> str:
        return f"thermal = {self.least.name.lower()!r}"


class HeadroomAbove(Struct, frozen=True):
    """The headroom, or its forecast, is above this: 1 is where the system throttles."""

    headroom: float
    about: str = "headroom"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        value = reading.headroom if self.about == "headroom" else reading.forecast
        return _is_above(value, self.headroom - slack.thermal)

    def __str__(self) -> str:
        return f"{self.about}_above = {self.headroom:g}"


class MemoryIs(Struct, frozen=True):
    """Memory is at least so short."""

    least: MemoryLevel
    about = "memory"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        return reading.memory is not None and reading.memory >= self.least

    def __str__(self) -> str:
        return f"memory = {self.least.name.lower()!r}"


class LoadAbove(Struct, frozen=True):
    """Other programs use more than this part of the processors."""

    load: float
    about = "load"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        return _is_above(reading.load, self.load - slack.load)

    def __str__(self) -> str:
        return f"load_above = {self.load:g}"


class ActiveWithin(Struct, frozen=True):
    """The user has touched the machine within so many seconds."""

    seconds: float
    about = "user_idle_s"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        idle_s = reading.user_idle_s
        return idle_s is not None and 0 <= idle_s < self.seconds

    def __str__(self) -> str:
        return f"active_within = '{self.seconds:g}s'"


class Between(Struct, frozen=True):
    """The local time of day is in here; minutes since midnight, the end is outside. It may pass midnight."""

    start: int
    end: int
    about = "minute"

    def is_met(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        minute = reading.minute
        return minute is not None and (minute - self.start) % DAY_MIN < (self.end - self.start) % DAY_MIN

    def __str__(self) -> str:
        return f"between = '{clock(self.start)}-{clock(self.end)}'"


def clock(minute: int) -> str:
    """A minute of the day as people write it."""
    return f"{minute // 60:02}:{minute % 60:02}"


def _is_above(value: float | None, bound: float) -> bool:
    return value is not None and math.isfinite(value) and value > bound
