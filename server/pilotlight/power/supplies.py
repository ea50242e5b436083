"""Linux: where the power comes from, by /sys/class/power_supply
(Documentation/ABI/testing/sysfs-class-power).

Supplies are told apart by their `type`, never by their name. As in systemd's `on_ac_power` whatever is not
clearly a machine on its battery is on mains: a wrong guess there would take work from somebody who is plugged
in."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from pilotlight.power.files import Files
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence, Supply

FOLDER = "sys/class/power_supply"

MICRO = 1e-6

LEAST_WATTS = 1.0
"""A battery that gives less beside a charger is resting: firmware calls that "Discharging", too (see
`acpi_battery_handle_discharging` in the kernel's drivers/acpi/battery.c)."""

MOST_WATTS = 1000.0
MOST_WH = 20_000.0
MOST_VOLTS = 1000.0
MOST_MINUTES = 7 * 24 * 60.0

LEVELS = {"Critical": 5.0, "Low": 15.0, "Full": 100.0}
"""Percent for the `capacity_level` of a battery that has no number."""


class Battery(Struct, frozen=True):
    """One pack that powers the machine; None is what it does not tell."""

    name: str
    status: str | None
    percent: float | None
    wh: float | None
    wh_full: float | None
    watts: float | None
    """What goes through it, in either direction."""
    minutes: float | None
    """Until it is empty, as its gauge says."""
    is_above_limit: bool
    """It holds more than the charge limit that the user has set, so firmware empties it down to that."""

    @property
    def is_discharging(self) -> bool:
        return self.status == "Discharging"

    @property
    def is_draining(self) -> bool:
        """Beside a charger: it gives, for no reason but that the charger gives too little."""
        return self.is_discharging and not self.is_above_limit and (self.watts or 0.0) >= LEAST_WATTS


class Charger(Struct, frozen=True):
    """An adapter or a port that power may come in by."""

    name: str
    kind: str
    is_online: bool | None


def read(files: Files) -> Iterator[Finding]:
    """Supply, percent, watts and minutes left."""
    if not files.is_folder(FOLDER):
        for field in ("supply", "percent", "watts", "minutes_left", "full_wh"):
            yield Missing(field, f"there is no {FOLDER}")
        return
    batteries, chargers = _look(files)
    supply = _supply(batteries, chargers)
    yield supply
    if not batteries:
        for field in ("percent", "watts", "minutes_left", "full_wh"):
            yield Missing(field, "there is no battery")
        return
    yield _percent(batteries)
    yield _full(batteries)
    yield from _drain(batteries, supply.value)


def _look(files: Files) -> tuple[list[Battery], list[Charger]]:
    batteries: list[Battery] = []
    chargers: list[Charger] = []
    for name in files.names(FOLDER):
        path = f"{FOLDER}/{name}"
        kind = files.text(f"{path}/type")
        if kind is None or files.text(f"{path}/scope") == "Device" or files.text(f"{path}/present") == "0":
            continue  # a mouse, a headset, or a bay without a pack
        if kind == "Battery" or (kind == "UPS" and files.text(f"{path}/status") is not None):
            batteries.append(_battery(files, name))
        elif not kind.startswith("USB") or _is_sink(files, path):
            chargers.append(_charger(files, name, kind))
    return batteries, chargers


def _charger(files: Files, name: str, kind: str) -> Charger:
    online = files.number(f"{FOLDER}/{name}/online")
    return Charger(name, kind, None if online is None else online > 0)


def _is_sink(files: Files, path: str) -> bool:
    """A USB-C port that feeds a phone is no charger; one that says nothing of roles may be."""
    ports = f"{path}/device/typec"
    roles = [files.text(f"{ports}/{port}/power_role") or "" for port in files.names(ports, "port")]
    return any("[sink]" in role for role in roles) or not any("[source]" in role for role in roles)


def _battery(files: Files, name: str) -> Battery:
    path = f"{FOLDER}/{name}"
    status = files.text(f"{path}/status")
    volts = files.within(f"{path}/voltage_now", 1, MOST_VOLTS, MICRO)
    design = files.within(f"{path}/voltage_min_design", 1, MOST_VOLTS, MICRO) or volts
    wh, wh_full = _energy(files, path, "now", design), _energy(files, path, "full", design)
    percent = _charge(files, path, status)
    if percent is None and wh is not None and wh_full:
        percent = min(100.0, 100 * wh / wh_full)
    limit = files.within(f"{path}/charge_control_end_threshold", 1, 99)
    return Battery(
        name=name,
        status=status,
        percent=percent,
        wh=wh,
        wh_full=wh_full,
        watts=_watts(files, path, volts),
        minutes=_gauge(files, path),
        is_above_limit=percent is not None and limit is not None and percent > limit,
    )


def _energy(files: Files, path: str, which: str, volts: float | None) -> float | None:
    """Watt-hours; a gauge that counts charge needs the pack's nominal voltage for that."""
    if (energy := files.within(f"{path}/energy_{which}", 0, MOST_WH, MICRO)) is not None:
        return energy
    charge = files.within(f"{path}/charge_{which}", 0, MOST_WH, MICRO)
    return None if charge is None or volts is None else charge * volts


def _charge(files: Files, path: str, status: str | None) -> float | None:
    percent = files.within(f"{path}/capacity", 0, 110)
    if percent is None:
        return LEVELS.get(files.text(f"{path}/capacity_level") or "")
    # WSL 1 has a pack that is full at 0 %.
    return None if status == "Full" and percent == 0 else min(100.0, percent)


def _watts(files: Files, path: str, volts: float | None) -> float | None:
    """The ABI lets current be negative, drivers disagree about power: `status` says which way it goes."""
    power = files.within(f"{path}/power_now", -MOST_WATTS, MOST_WATTS, MICRO)
    if power is None and volts is not None:
        current = files.within(f"{path}/current_now", -MOST_WATTS, MOST_WATTS, MICRO)
        power = None if current is None else current * volts
    return None if power is None or abs(power) > MOST_WATTS else abs(power)


def _gauge(files: Files, path: str) -> float | None:
    for name in ("time_to_empty_avg", "time_to_empty_now"):
        if minutes := files.within(f"{path}/{name}", 0, MOST_MINUTES, 1 / 60):
            return minutes
    return None


def _supply(batteries: Sequence[Battery], chargers: Sequence[Charger]) -> Known:
    online = [one for one in chargers if one.is_online]
    if online:
        return _plugged(batteries, chargers, online)
    if discharging := [one.name for one in batteries if one.is_discharging]:
        return Known("supply", Supply.BATTERY, _source(discharging))
    if batteries or chargers:
        told = _source([*(one.name for one in batteries), *(one.name for one in chargers)])
        return Known("supply", Supply.AC, told, Confidence.DERIVED)
    return Known("supply", Supply.AC, "there is no battery", Confidence.GUESSED)


def _plugged(batteries: Sequence[Battery], chargers: Sequence[Charger], online: Sequence[Charger]) -> Known:
    source = _source([one.name for one in online])
    draining = [one.name for one in batteries if one.is_draining]
    if not draining:
        return Known("supply", Supply.AC, source)
    if all(one.kind != "Mains" for one in online) and any(
        one.kind == "Mains" and one.is_online is False for one in chargers
    ):
        # Ports keep saying that they are online after the plug was pulled (AsahiLinux/linux issue 626), or
        # give too little. Both empty the battery.
        return Known("supply", Supply.BATTERY, _source(draining), Confidence.DERIVED)
    return Known("supply", Supply.WEAK, _source([*draining, *(one.name for one in online)]))


def _percent(batteries: Sequence[Battery]) -> Finding:
    """Of all packs together, weighted by what they hold."""
    source = _source([one.name for one in batteries])
    percents = [one.percent for one in batteries if one.percent is not None]
    if len(batteries) == 1 and percents:
        return Known("percent", percents[0], source)
    held = [(one.wh, one.wh_full) for one in batteries if one.wh is not None and one.wh_full]
    if len(held) == len(batteries):
        percent = 100 * sum(now for now, _ in held) / sum(full for _, full in held)
        return Known("percent", min(100.0, percent), source, Confidence.DERIVED)
    if percents and len(percents) == len(batteries):
        return Known("percent", sum(percents) / len(percents), source, Confidence.GUESSED)
    return Missing("percent", f"{source} does not tell it")


def _full(batteries: Sequence[Battery]) -> Finding:
    """Of all packs together."""
    source = _source([one.name for one in batteries])
    full = [one.wh_full for one in batteries if one.wh_full]
    if len(full) < len(batteries):
        return Missing("full_wh", f"{source} does not tell it")
    return Known("full_wh", sum(full), source, Confidence.MEASURED if len(full) == 1 else Confidence.DERIVED)


def _drain(batteries: Sequence[Battery], supply: Supply) -> Iterator[Finding]:
    """Watts and minutes: the batteries measure what the whole machine draws only while they give it."""
    giving = [one for one in batteries if one.is_discharging]
    if supply is Supply.AC or not giving:
        yield Missing("watts", "measured only while a battery empties")
        yield Missing("minutes_left", "no battery empties")
        return
    source = _source([one.name for one in giving])
    watts = [one.watts for one in giving if one.watts is not None]
    total = sum(watts)
    if len(watts) < len(giving) or not 0 < total <= MOST_WATTS:
        yield Missing("watts", f"{source} does not tell it")
        yield _minutes(giving, None)
        return
    yield Known("watts", total, source, Confidence.MEASURED if len(giving) == 1 else Confidence.DERIVED)
    held = [one.wh for one in batteries if one.wh is not None]
    yield _minutes(giving, 60 * sum(held) / total if len(held) == len(batteries) else None)


def _minutes(giving: Sequence[Battery], derived: float | None) -> Finding:
    """Computed from what is left, else what the only pack's own gauge says."""
    source = _source([one.name for one in giving])
    if derived is not None and derived <= MOST_MINUTES:
        return Known("minutes_left", derived, source, Confidence.DERIVED)
    if len(giving) == 1 and giving[0].minutes is not None:
        return Known("minutes_left", giving[0].minutes, source)
    return Missing("minutes_left", f"{source} does not tell enough to compute it")


def _source(names: Sequence[str]) -> str:
    return f"power_supply {', '.join(names)}"
