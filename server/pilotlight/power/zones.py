"""Linux: which temperatures count, and at which of them the system slows down.

Of the dozens of sensors of a machine those of its processors are meant, chosen by the name of their driver:
hwmon's coretemp, k10temp and zenpower, the thermal zones of systems on a chip; ACPI's zone only where there
is nothing else. Looks for sensors and limits; `thermometers` reads them.

Where throttling begins (`severe`) is, in this order: the zone's passive trip point (the lowest; under the
power_allocator governor the highest, which is the one it holds); what a Raspberry Pi's firmware documents;
for coretemp its crit, the TjMax at which Intel's processors slow themselves down; the zone's hot trip point;
ten degrees below its critical one. Without any of these it is not known. It is critical (`critical`) half-way
from there to the critical trip point, where the machine switches itself off."""

import re
from collections.abc import Iterator

from msgspec import Struct

from pilotlight.power import pi
from pilotlight.power.files import Files

HWMON = "sys/class/hwmon"
THERMAL = "sys/class/thermal"

MOST_SENSORS = 24
MOST_TRIPS = 12

LOWEST_LIMIT = 50.0
HIGHEST_LIMIT = 125.0
"""Degrees; drivers fill in 0 or -274 for limits that are not set, and firmware 128 or 240."""

PI_SEVERE = 80.0
"""From here to 85 degrees a Raspberry Pi's firmware lowers the clock (its documentation, "Frequency
management")."""

PI_CRITICAL = 88.0
"""At the earliest: at 85 degrees the firmware holds it all day, give or take one, and kernels switch it off
at 90 (Raspberry Pi 3 and 4) or 110."""

BELOW_CRITICAL = 10.0

LABELS = {"k10temp": ("Tdie", "Tctl"), "zenpower": ("Tdie", "Tctl"), "coretemp": ("Package id",)}
"""The sensor that speaks for the whole chip, best first: AMD's Tctl may be Tdie plus an offset for fans."""

SOC = re.compile(
    r"(cpu|soc|tj|cluster|core|apss|big|little|pkg|package)[\w-]*[-_]therm(al)?\Z", re.IGNORECASE
)
"""Names of zones on a chip: cpu-thermal, CPU-therm, soc0-thermal, tj-thermal, cpu0-0-top-thermal."""


class Sensor(Struct, frozen=True):
    """One temperature: its file in millidegrees, and its limits in degrees."""

    name: str
    path: str
    severe: float | None = None
    """Where throttling begins."""
    critical: float | None = None
    """Where it begins to be critical."""
    is_doubtful: bool = False
    """Many machines report a constant here: not believed before it has moved."""


def chips(files: Files) -> list[tuple[str, str]]:
    """The hwmon chips: each one's name and folder."""
    folders = [f"{HWMON}/{chip}" for chip in files.names(HWMON, "hwmon")]
    return [(name, folder) for folder in folders if (name := files.text(f"{folder}/name")) is not None]


def find(files: Files) -> list[Sensor]:
    """The sensors that count."""
    all_chips = chips(files)
    is_pi = pi.is_one(files, all_chips)
    labelled = [(name, folder) for name, folder in all_chips if name in LABELS]
    zones = [
        (zone, files.text(f"{THERMAL}/{zone}/type") or "") for zone in files.names(THERMAL, "thermal_zone")
    ]
    chosen = [sensor for name, folder in labelled for sensor in _chip(files, folder, name)]
    chosen += [_zone(files, zone, kind, is_pi) for zone, kind in zones if SOC.match(kind)]
    for fallback in ("x86_pkg_temp", "acpitz"):
        if not chosen:
            chosen = [_zone(files, zone, kind, is_pi) for zone, kind in zones if kind == fallback]
    return chosen[:MOST_SENSORS]


def _chip(files: Files, path: str, name: str) -> list[Sensor]:
    """Of one chip the sensor with the best label; all of them if they have no such labels."""
    inputs = [file.removesuffix("_input") for file in files.names(path, "temp") if file.endswith("_input")]
    labelled = {one: files.text(f"{path}/{one}_label") or "" for one in inputs}
    for label in LABELS[name]:
        if best := [one for one, text in labelled.items() if text.startswith(label)]:
            inputs = best
            break
    return [_input(files, path, name, one, labelled[one]) for one in inputs]


def _input(files: Files, path: str, name: str, one: str, label: str) -> Sensor:
    crit = _limit(files, f"{path}/{one}_crit") if name == "coretemp" else None
    return Sensor(f"{name} {label or one}", f"{path}/{one}_input", severe=crit)


def _zone(files: Files, zone: str, kind: str, is_pi: bool) -> Sensor:
    path = f"{THERMAL}/{zone}"
    trips = (
        list(_trips(files, path)) if kind != "x86_pkg_temp" else []
    )  # whose trips programs set for themselves
    passive, hot, critical = (
        [at for name, at in trips if name == one] for one in ("passive", "hot", "critical")
    )
    is_held = files.text(f"{path}/policy") == "power_allocator"
    severe: float | None = None
    if passive:
        severe = max(passive) if is_held else min(passive)
    elif is_pi:
        severe = PI_SEVERE
    elif hot:
        severe = min(hot)
    elif critical:
        severe = min(critical) - BELOW_CRITICAL
    critical_from: float | None = None
    if severe is not None and critical:
        half_way = (severe + min(critical)) / 2
        critical_from = max(half_way, PI_CRITICAL) if is_pi else half_way
    return Sensor(kind, f"{path}/temp", severe, critical_from, is_doubtful=kind == "acpitz")


def _trips(files: Files, path: str) -> Iterator[tuple[str, float]]:
    for number in range(MOST_TRIPS):
        kind = files.text(f"{path}/trip_point_{number}_type")
        if kind is None:
            return
        at = _limit(files, f"{path}/trip_point_{number}_temp")
        if at is not None:
            yield kind, at


def _limit(files: Files, path: str) -> float | None:
    return files.within(path, LOWEST_LIMIT, HIGHEST_LIMIT, 1e-3)
