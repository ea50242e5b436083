"""macOS: what its calls say of power, heat and memory. The calls themselves are in `macos_calls`."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence, Supply, ThermalLevel
from pilotlight.registry.pressure import Level

SUPPLIES = {"AC Power": Supply.AC, "Battery Power": Supply.BATTERY, "UPS Power": Supply.BATTERY}
"""By the type of the power source that provides (IOKit's IOPSKeys.h)."""

PRESSURES = (
    ThermalLevel.NOMINAL,
    ThermalLevel.FAIR,
    ThermalLevel.FAIR,
    ThermalLevel.SERIOUS,
    ThermalLevel.CRITICAL,
)
"""Of nominal, moderate, heavy, trapping and sleeping (OSThermalNotification.h): machines with a fan are at
heavy for hours and lose little."""

MEMORY = {1: Level.NONE, 2: Level.WARN, 4: Level.CRITICAL}
"""Of kern.memorystatus_vm_pressure_level."""

MOST_MINUTES = 7 * 24 * 60


class Battery(Struct, frozen=True):
    """The machine's own, in percent; `minutes_left` -1 is not known yet."""

    current: int
    most: int
    minutes_left: int


class Calls(Protocol):
    """What is asked of the system; None where it does not answer."""

    def provider(self) -> str | None:
        """The type of the providing power source."""

    def battery(self) -> Battery | None:
        """The internal battery."""

    def is_low_power(self) -> bool | None:
        """Low Power Mode."""

    def thermal_state(self) -> int | None:
        """NSProcessInfo's, 0 to 3."""

    def thermal_pressure(self) -> int | None:
        """The notification's state, 0 to 4: finer, and not documented."""

    def memory_pressure(self) -> int | None:
        """1, 2 or 4."""


class Mac:
    """Reads through these calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def look(self, now: float, pids: Collection[int]) -> Sequence[Finding]:
        """All findings; see `sampling.Machine`."""
        return [*self._power(), *self._heat(), *self._memory()]

    def _power(self) -> Iterator[Finding]:
        supply = SUPPLIES.get(self._calls.provider() or "")
        if supply is not None:
            yield Known("supply", supply, "IOPSGetProvidingPowerSourceType")
        battery = self._calls.battery()
        if battery is None or not 0 <= battery.current <= battery.most or not battery.most:
            yield Missing("percent", "there is no battery")
        else:
            yield Known("percent", 100 * battery.current / battery.most, "IOPSGetPowerSourceDescription")
            if supply is Supply.BATTERY and 0 < battery.minutes_left <= MOST_MINUTES:
                yield Known("minutes_left", float(battery.minutes_left), "IOPSGetPowerSourceDescription")
        saving = self._calls.is_low_power()
        if saving is not None:
            yield Known("is_saving", saving, "NSProcessInfo.isLowPowerModeEnabled")

    def _heat(self) -> Iterator[Finding]:
        state, pressure = self._calls.thermal_state(), self._calls.thermal_pressure()
        if state is not None and 0 <= state <= ThermalLevel.CRITICAL:
            yield Known("thermal", ThermalLevel(state), "NSProcessInfo.thermalState")
        if pressure is not None and 0 <= pressure < len(PRESSURES):
            yield Known("thermal", PRESSURES[pressure], "thermalpressurelevel", Confidence.DERIVED)

    def _memory(self) -> Iterator[Finding]:
        level = MEMORY.get(self._calls.memory_pressure() or 0)
        if level is not None:
            yield Known("memory", level, "kern.memorystatus_vm_pressure_level")
