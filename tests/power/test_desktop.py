"""What services say over D-Bus: a bus of our own, and services on it that answer as the real ones do."""

import time
from pathlib import Path

import pytest

pytest.importorskip("jeepney")

from desktop_bus import service
from pilotlight.power.desktop import APPLICATION, LOGIND, PROFILES, Desktop
from pilotlight.power.files import AGAIN_S
from pilotlight.power.finding import assemble
from pilotlight.power.reading import Confidence, Reading

AWAY = {"IdleHint": ("b", True), "IdleSinceHintMonotonic": ("t", 1_000_000)}
BACK = {"IdleHint": ("b", False), "IdleSinceHintMonotonic": ("t", 1_000_000)}
SAVING = {"ActiveProfile": ("s", "power-saver"), "PerformanceDegraded": ("s", "")}


def reading() -> Reading:
    desktop = Desktop()
    try:
        return assemble(desktop.read(0), 0)
    finally:
        desktop.close()


def test_who_is_away_is_known_with_how_long(bus: str) -> None:
    """By logind's hint, on the clock that counts since the start."""
    with service(bus, LOGIND[0], AWAY):
        idle_s = reading().user_idle_s
    assert idle_s == pytest.approx(time.monotonic() - 1, abs=5)


def test_who_is_back_is_there(bus: str) -> None:
    """However long ago that was: the desktop says when nobody is."""
    with service(bus, LOGIND[0], BACK):
        assert reading().user_idle_s == 0


def test_nobody_away_tells_nothing(bus: str) -> None:
    """Desktops that never tell logind look the same, and so does a server."""
    with service(bus, LOGIND[0], {"IdleHint": ("b", False), "IdleSinceHintMonotonic": ("t", 0)}):
        assert reading().unknown["user_idle_s"] == "logind was told of nobody who is away"


def test_what_keeps_the_machine_awake_is_nobody(bus: str) -> None:
    """A backup says that the machine is not idle, too."""
    with service(bus, LOGIND[0], BACK | {"BlockInhibited": ("s", "shutdown:idle")}):
        assert reading().unknown["user_idle_s"].startswith("something keeps logind")
    with service(bus, LOGIND[0], BACK | {"BlockInhibited": ("s", "sleep:handle-power-key")}):
        assert reading().user_idle_s == 0


@pytest.mark.parametrize("name", [service[0] for service in PROFILES])
def test_the_power_mode_is_known_by_both_names(bus: str, name: str) -> None:
    """Of the service that sets it."""
    with service(bus, name, SAVING):
        assert (reading().is_saving, reading().is_throttled) == (True, False)


def held_by(*applications: str) -> dict[str, tuple[str, object]]:
    """The power saver is on because these hold it."""
    holds = [{"ApplicationId": ("s", one), "Profile": ("s", "power-saver")} for one in applications]
    return SAVING | {"ActiveProfileHolds": ("aa{sv}", holds)}


def test_a_power_saver_that_we_hold_is_nobodys_wish(bus: str) -> None:
    """Unless somebody else holds it, too."""
    for applications, is_wanted in (((APPLICATION,), False), ((APPLICATION, "game"), True), ((), True)):
        with service(bus, PROFILES[0][0], held_by(*applications)):
            assert reading().is_saving is is_wanted


def test_a_bus_that_does_not_answer_has_changed_no_mode(bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The firmware, which would be asked else, takes a saver that we hold for the user's; a service that is
    gone has none."""
    desktop = Desktop()
    with service(bus, PROFILES[0][0], held_by(APPLICATION)):
        assert assemble(desktop.read(0), 0).is_saving is False
        with monkeypatch.context() as gone:
            gone.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/none")
            desktop.close()
            assert assemble(desktop.read(AGAIN_S), 0).is_saving is False
    assert assemble(desktop.read(2 * AGAIN_S), 0).is_saving is None
    desktop.close()


def test_a_laptop_that_is_slowed_because_of_heat_says_so(bus: str) -> None:
    """Not one that is on somebody's lap. It is a guess: turbo may be off for other reasons."""
    hot = SAVING | {"PerformanceDegraded": ("s", "high-operating-temperature")}
    with service(bus, PROFILES[0][0], hot):
        hot_one = reading()
        assert (hot_one.is_throttled, hot_one.confidence("is_throttled")) == (True, Confidence.GUESSED)
    with service(bus, PROFILES[0][0], SAVING | {"PerformanceDegraded": ("s", "lap-detected")}):
        assert reading().is_throttled is False


def test_properties_of_other_types_are_nothing(bus: str) -> None:
    """Whoever owns the name."""
    odd = {"IdleHint": ("s", "yes"), "IdleSinceHintMonotonic": ("s", "x"), "ActiveProfile": ("u", 7)}
    with service(bus, LOGIND[0], odd), service(bus, PROFILES[0][0], odd):
        assert reading().origins == {}


def test_without_a_bus_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in most containers."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'none'}")
    assert reading().unknown["user_idle_s"].startswith("there is no system bus")
