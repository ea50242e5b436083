"""macOS and Windows: what recorded answers of their calls mean."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pilotlight.power import macos, windows
from pilotlight.power.files import Files
from pilotlight.power.finding import assemble
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level

FOUR_FIFTHS = macos.Battery(80, 100, -1)


@dataclass
class MacCalls:
    """What a MacBook answered; the defaults are those of one on its charger."""

    says_provider: str | None = "AC Power"
    says_battery: macos.Battery | None = FOUR_FIFTHS
    says_low_power: bool | None = False
    says_state: int | None = 0
    says_pressure: int | None = 0
    says_memory: int | None = 1

    def provider(self) -> str | None:
        return self.says_provider

    def battery(self) -> macos.Battery | None:
        return self.says_battery

    def is_low_power(self) -> bool | None:
        return self.says_low_power

    def thermal_state(self) -> int | None:
        return self.says_state

    def thermal_pressure(self) -> int | None:
        return self.says_pressure

    def memory_pressure(self) -> int | None:
        return self.says_memory


@dataclass
class WindowsCalls:
    """What a laptop answered; the defaults are those of one on its charger."""

    line: int = 1
    flag: int = 8
    percent: int = 96
    saver: int = 0
    seconds: int = 2**32 - 1
    idle: float | None = 4.5
    low: bool | None = False
    answers: bool = True

    def status(self) -> windows.Status | None:
        found = windows.Status(self.line, self.flag, self.percent, self.saver, self.seconds)
        return found if self.answers else None

    def idle_s(self) -> float | None:
        return self.idle

    def is_memory_low(self) -> bool | None:
        return self.low


def mac(**answers: object) -> Reading:
    return assemble(macos.Mac(MacCalls(**answers)).look(0, ()), 0)  # type: ignore[arg-type]


def pc(**answers: object) -> Reading:
    return assemble(windows.Windows(WindowsCalls(**answers)).look(0, ()), 0)  # type: ignore[arg-type]


def test_a_mac_on_its_charger() -> None:
    """Nothing to restrict; minutes are not told."""
    reading = mac()
    assert (reading.supply, reading.percent, reading.minutes_left) == (Supply.AC, 80, None)
    assert (reading.is_saving, reading.thermal, reading.memory) == (False, ThermalLevel.NOMINAL, Level.NONE)


def test_a_mac_on_its_battery_in_low_power_mode() -> None:
    """Minutes are known once the system knows them."""
    reading = mac(says_provider="Battery Power", says_battery=macos.Battery(14, 100, 42), says_low_power=True)
    assert (reading.supply, reading.percent, reading.minutes_left) == (Supply.BATTERY, 14, 42)
    assert reading.is_saving is True


@pytest.mark.parametrize(
    ("state", "pressure", "level"),
    [(0, 2, "FAIR"), (1, 0, "FAIR"), (2, 2, "SERIOUS"), (0, 3, "SERIOUS"), (3, 0, "CRITICAL"), (7, 9, None)],
)
def test_the_worse_of_both_thermal_levels_counts(state: int, pressure: int, level: str | None) -> None:
    """What neither of the systems' lists has is not known."""
    expected = None if level is None else ThermalLevel[level]
    assert mac(says_state=state, says_pressure=pressure).thermal is expected


def test_a_mac_mini_has_no_battery() -> None:
    """And one whose calls fail is not restricted."""
    assert mac(says_battery=None).unknown["percent"] == "there is no battery"
    nothing = dict.fromkeys(MacCalls.__annotations__)
    assert mac(**nothing).origins == {}


def test_a_laptop_on_its_charger() -> None:
    """Idle time and memory come from calls of their own."""
    reading = pc()
    assert (reading.supply, reading.percent, reading.minutes_left) == (Supply.AC, 96, None)
    assert (reading.is_saving, reading.user_idle_s, reading.memory) == (False, 4.5, Level.NONE)


def test_a_laptop_on_its_battery_in_energy_saver() -> None:
    """With what is left of it."""
    reading = pc(line=0, flag=4, percent=4, saver=1, seconds=600, low=True)
    assert (reading.supply, reading.percent, reading.minutes_left) == (Supply.BATTERY, 4, 10)
    assert (reading.is_saving, reading.memory) == (True, Level.WARN)


def test_a_desktop_under_windows() -> None:
    """It has no battery, and a status of 255 tells nothing."""
    desktop = pc(flag=128, percent=255)
    assert (desktop.supply, desktop.percent) == (Supply.AC, None)
    assert (pc(line=255, flag=255, percent=255).supply, pc(percent=255).percent) == (None, None)


def test_windows_that_does_not_answer() -> None:
    """Nothing is known, and nothing raises."""
    assert pc(answers=False, idle=None, low=None).origins == {}


def test_files_are_named_by_one_slash() -> None:
    """On Windows two of them name another machine, which is asked for over the network."""
    assert Files(Path("/"))._at("sys/class") == "/sys/class"
