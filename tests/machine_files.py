"""A machine that is a folder: its one thermometer, and what a daemon makes of it."""

import re
from pathlib import Path

from serving import Daemon

TRIPS = {"passive": 80, "critical": 100}
"""Degrees at which it throttles, and switches itself off."""


def show_heat(root: Path, celsius: int) -> None:
    """The sensor has this from now on."""
    folder = root / "sys/class/thermal/thermal_zone0"
    if not folder.exists():
        folder.mkdir(parents=True)
        _write(folder / "type", "cpu-thermal")
        for number, (kind, at) in enumerate(TRIPS.items()):
            _write(folder / f"trip_point_{number}_type", kind)
            _write(folder / f"trip_point_{number}_temp", f"{at}000")
    _write(folder / "temp", f"{celsius}000")


def show_throttling(root: Path, state: int) -> None:
    """The system slows its processors down by so many steps."""
    folder = root / "sys/class/thermal/cooling_device0"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "type", "Processor")
    _write(folder / "cur_state", str(state))


def metric(daemon: Daemon, name: str) -> float:
    """The one of this name, labels included; 0 if there is none."""
    found = re.search(rf"^{re.escape(name)} (.+)$", daemon.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _write(file: Path, text: str) -> None:
    """At once: nobody ever finds it empty."""
    part = file.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(file)
