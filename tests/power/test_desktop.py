"""What services say over D-Bus: a bus of our own, and services on it that answer as the real ones do."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilotlight.power.desktop import LOGIND, PROFILES, Desktop
from pilotlight.power.finding import assemble
from pilotlight.power.reading import Reading

jeepney = pytest.importorskip("jeepney")
blocking = pytest.importorskip("jeepney.io.blocking")

pytestmark = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="there is no dbus-daemon")

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy>
</busconfig>"""

AWAY = {"IdleHint": ("b", True), "IdleSinceHintMonotonic": ("t", 1_000_000)}
SAVING = {"ActiveProfile": ("s", "power-saver"), "PerformanceDegraded": ("s", "")}


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a bus that is the system's for us."""
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG.format(path=tmp_path / "bus"))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        address = daemon.stdout.readline().strip()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address
        daemon.terminate()


@contextmanager
def service(bus: str, name: str, properties: Mapping[str, Any]) -> Iterator[None]:
    """One that answers every question with these."""
    connection = blocking.open_dbus_connection(bus=bus)
    connection.send_and_get_reply(jeepney.message_bus.RequestName(name), timeout=10)

    def answer() -> None:
        while True:
            question = connection.receive()
            if question.header.fields.get(jeepney.HeaderFields.member) == "GetAll":
                connection.send(jeepney.new_method_return(question, "a{sv}", (properties,)))
            elif question.header.fields.get(jeepney.HeaderFields.member) == "End":
                return

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        with blocking.open_dbus_connection(bus=bus) as other:
            address = jeepney.DBusAddress("/", bus_name=name, interface="test.Test")
            other.send(jeepney.new_method_call(address, "End"))
            thread.join(10)
        connection.close()


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


def test_nobody_away_tells_nothing(bus: str) -> None:
    """Desktops that never tell logind look the same."""
    with service(bus, LOGIND[0], {"IdleHint": ("b", False), "IdleSinceHintMonotonic": ("t", 5)}):
        assert reading().unknown["user_idle_s"] == "logind knows of nobody who is away"


@pytest.mark.parametrize("name", [service[0] for service in PROFILES])
def test_the_power_mode_is_known_by_both_names(bus: str, name: str) -> None:
    """Of the service that sets it."""
    with service(bus, name, SAVING):
        assert (reading().is_saving, reading().is_throttled) == (True, False)


def test_a_laptop_that_is_slowed_because_of_heat_says_so(bus: str) -> None:
    """Not one that is on somebody's lap."""
    hot = SAVING | {"PerformanceDegraded": ("s", "high-operating-temperature")}
    with service(bus, PROFILES[0][0], hot):
        assert reading().is_throttled is True
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
