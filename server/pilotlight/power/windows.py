"""Windows: what its calls say of power, memory and the person. The calls themselves are in
`windows_calls`."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Supply
from pilotlight.registry.pressure import Level

SOURCE = "GetSystemPowerStatus"

SUPPLIES = {0: Supply.BATTERY, 1: Supply.AC}
"""By ACLineStatus; 255 is not known."""

NO_BATTERY = 128
UNKNOWN = 255
"""Of BatteryFlag; the second one of BatteryLifePercent, too."""

MOST_SECONDS = 7 * 24 * 3600


class Status(Struct, frozen=True):
    """SYSTEM_POWER_STATUS, as it is documented."""

    line: int
    flag: int
    percent: int
    is_saving: int
    seconds_left: int
    """Unsigned; all bits set if it is not known."""


class Calls(Protocol):
    """What is asked of the system; None where it does not answer."""

    def status(self) -> Status | None:
        """Of the power."""

    def idle_s(self) -> float | None:
        """Since the last input of this session."""

    def is_memory_low(self) -> bool | None:
        """The system's own notification object is set."""


class Windows:
    """Reads through these calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def look(self, now: float, pids: Collection[int]) -> Sequence[Finding]:
        """All findings; see `sampling.Machine`."""
        return [*self._power(), *self._others()]

    def _power(self) -> Iterator[Finding]:
        status = self._calls.status()
        if status is None:
            return
        supply = SUPPLIES.get(status.line)
        if supply is not None:
            yield Known("supply", supply, SOURCE)
        yield Known("is_saving", status.is_saving == 1, SOURCE)
        if status.flag != UNKNOWN and status.flag & NO_BATTERY:
            yield Missing("percent", "there is no battery")
            return
        if 0 <= status.percent <= 100:
            yield Known("percent", float(status.percent), SOURCE)
        if supply is Supply.BATTERY and 0 < status.seconds_left <= MOST_SECONDS:
            yield Known("minutes_left", status.seconds_left / 60, SOURCE)

    def _others(self) -> Iterator[Finding]:
        idle_s, is_low = self._calls.idle_s(), self._calls.is_memory_low()
        if idle_s is not None and idle_s >= 0:
            yield Known("user_idle_s", idle_s, "GetLastInputInfo")
        if is_low is not None:
            # The system says it once little is left: what frees memory is right then, refusing is not.
            yield Known("memory", Level.WARN if is_low else Level.NONE, "MemoryResourceNotification")
