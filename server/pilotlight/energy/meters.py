"""What counts joules. A meter has a method (how it knows) and a scope (whose energy it counts).

Meters count everything in their scope, whoever used it. Whose joules they were is not known here.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

import psutil
from msgspec import Struct

from pilotlight.power.files import Files, Remembered
from pilotlight.power.reading import Reading, Supply
from pilotlight.power.sampling import STALE_S
from pilotlight.power.sleep import LEAST_S, slept_s

POWERCAP = "sys/class/powercap"

MICRO = 1e-6

MOST_WATTS = 2000.0
"""That one counter counts, with room: the largest processors (Xeon 6980P, EPYC 9965) are made for 500."""

SLACK_S = 1.0
"""What the event loop's time may be late when a counter is read."""

_PACKAGE = re.compile(r"intel-rapl:\d+")
_INSIDE = re.compile(r"intel-rapl:\d+:\d+")


class Method(StrEnum):
    """How joules are known; see `Meter.scope` for whose they are."""

    RAPL = "rapl"
    """Counters of the processor itself."""
    BATTERY = "battery"
    """What the batteries give, in watts, times the time."""
    BOARD = "board"
    """The same by a board's own meter at its input."""
    NVML = "nvml"
    """By counters of NVIDIA's GPUs, looked at once a second."""
    MODEL = "model"
    """The workers' processor time, times the watts that the user has set for a core."""
    NONE = "none"


class Meter(Protocol):
    """Something that counts; only differences between two counts mean anything."""

    @property
    def method(self) -> Method: ...
    @property
    def scope(self) -> str:
        """`package` (processors, their caches and graphics), `package+dram`, `system`, `gpu` or `process`."""

    def counts(self, pid: int) -> bool:
        """What the process of this pid does is in its scope."""

    def joules(self, now: float) -> float | None:
        """Counted so far; None if it cannot tell now. Never less than before."""

    def has_news(self, since: float) -> bool:
        """It has measured something since then."""

    @property
    def lacks(self) -> str | None:
        """Why it can tell nothing, in a few words; None if it can."""


class _Zone(Struct, frozen=True):
    """One counter: its folder, and the microjoules after which it begins anew."""

    folder: str
    range_uj: int
    is_memory: bool


class _Always:
    """Most meters count whoever computes, and measure whenever they are looked at."""

    def counts(self, pid: int) -> bool:
        return True

    def has_news(self, since: float) -> bool:
        return True


class Rapl(_Always):
    """Processors' own counters, where they may be read (Documentation/power/powercap/powercap.rst).

    Packages, and their memory where it is counted apart. Not `psys`, which counts the packages again, and not
    the parts of packages (`core`, `uncore`).
    """

    method: Final = Method.RAPL

    def __init__(self, files: Files, slept_s: Callable[[], float] = slept_s) -> None:
        self._files = files
        self._slept_s = slept_s
        self._slept = slept_s()
        """At the last look."""
        self._zones = Remembered(self._look)
        self._before: dict[str, int] = {}
        self._looked_at = 0.0
        self._joules = 0.0
        self.scope = "package"
        self.lacks: str | None = "not read yet"

    def joules(self, now: float) -> float | None:
        zones = self._zones.at(now)
        counts = {zone: self._count(zone) for zone in zones}
        self._note(zones, counts)
        passed, self._looked_at = now - self._looked_at, now
        slept_before, self._slept = self._slept, self._slept_s()
        if self.lacks is not None:
            self._before.clear()
            return None
        more = []
        for zone, count in counts.items():
            assert count is not None, "else something would be lacking"
            more.append(MICRO * self._since_before(zone, count))
            self._before[zone.folder] = count
        if _has_slept(max(more), passed, self._slept - slept_before):
            return None
        self._joules += sum(more)
        return self._joules

    def _note(self, zones: "list[_Zone]", counts: "dict[_Zone, int | None]") -> None:
        unread = [zone.folder for zone, count in counts.items() if count is None]
        if not zones:
            self.lacks = f"there is no counter of a processor in {POWERCAP}"
        elif unread:
            self.lacks = f"{unread[0]}/energy_uj cannot be read; on most systems root alone may"
        else:
            self.lacks = None
            self.scope = "package+dram" if any(zone.is_memory for zone in zones) else "package"

    def _since_before(self, zone: _Zone, count: int) -> int:
        """A counter that is less than before has reached its end: it was read often enough for that to be
        once. (Or the machine has slept.)"""
        more = count - self._before.get(zone.folder, count)
        return more if more >= 0 else more + zone.range_uj

    def _count(self, zone: _Zone) -> int | None:
        count = self._files.within(f"{zone.folder}/energy_uj", 0, zone.range_uj)
        return None if count is None else int(count)

    def _look(self) -> list[_Zone]:
        return [
            zone
            for name in self._files.names(POWERCAP, "intel-rapl:")
            if (zone := self._zone(name)) is not None
        ]

    def _zone(self, name: str) -> _Zone | None:
        folder = f"{POWERCAP}/{name}"
        kind = self._files.text(f"{folder}/name") or ""
        is_memory = bool(_INSIDE.fullmatch(name)) and kind == "dram"
        is_package = bool(_PACKAGE.fullmatch(name)) and kind.startswith("package")
        range_uj = self._files.number(f"{folder}/max_energy_range_uj")
        if not (is_memory or is_package) or range_uj is None or range_uj <= 0:
            return None
        return _Zone(folder, range_uj, is_memory)


class Gauge(_Always):
    """Watts times the time: a value holds until the next one. `watts` takes them from a reading."""

    def __init__(
        self, method: Method, scope: str, watts: Callable[[Reading], float | None], lacks: str
    ) -> None:
        self.method: Final = method
        self.scope: Final = scope
        self._pick = watts
        self._lacks = lacks
        self._watts: float | None = None
        self._joules = 0.0
        self._at = self._read_at = self._changed_at = 0.0

    @property
    def lacks(self) -> str | None:
        return self._lacks if self._watts is None else None

    def on_reading(self, reading: Reading, now: float) -> None:
        """A look at the machine, or what is left of the last one."""
        self._advance(now)
        watts = self._pick(reading)
        if watts != self._watts:
            self._watts, self._changed_at = watts, now
        self._read_at = now

    def joules(self, now: float) -> float | None:
        self._advance(now)
        is_stale = now - self._read_at > STALE_S
        return None if self._watts is None or is_stale else self._joules

    def has_news(self, since: float) -> bool:
        """Gauges measure every few seconds at best, and say the same until then."""
        return self._changed_at > since

    def _advance(self, now: float) -> None:
        self._joules += (self._watts or 0.0) * (now - self._at)
        self._at = now


class GpuGauge(Gauge):
    """The GPUs that models are on, and no other model's."""

    def __init__(self) -> None:
        super().__init__(Method.NVML, "gpu", lambda reading: reading.gpu_watts, "")
        self._why: str | None = "not read yet"
        self._pids: tuple[int, ...] = ()

    @property
    def lacks(self) -> str | None:
        return self._why

    def on_reading(self, reading: Reading, now: float) -> None:
        super().on_reading(reading, now)
        self._why = reading.unknown.get("gpu_watts")
        self._pids = reading.gpu_pids or ()

    def counts(self, pid: int) -> bool:
        return pid in self._pids


class ProcessorTime(_Always):
    """The user's own word for what a busy core draws, times the processor time that workers took."""

    method: Final = Method.MODEL
    scope: Final = "process"

    def __init__(self, watts_per_core: float) -> None:
        self._watts = watts_per_core
        self._joules = 0.0

    @property
    def lacks(self) -> str | None:
        return None if self._watts else "power.watts_per_core is not set"

    def used(self, seconds: float) -> None:
        """Of processor time, by a worker."""
        self._joules += seconds * self._watts

    def joules(self, now: float) -> float | None:
        return self._joules if self._watts else None


def _has_slept(joules: float, passed: float, slept: float) -> bool:
    """The machine did, or nobody tells, but more was counted than a processor draws: after its sleep a
    counter begins anew, or it has counted all night. `passed` is without that (`CLOCK_MONOTONIC`). If it is
    long, nobody computed meanwhile, and it does not matter what was counted."""
    return passed <= STALE_S and (slept >= LEAST_S or joules > MOST_WATTS * (passed + SLACK_S))


def meters_of(files: Files) -> "tuple[Meter, ...]":
    """All that a machine may have; elsewhere than on Linux no processor's counters can be read."""
    rapl = (Rapl(files),) if files.are_linux else ()
    return *rapl, battery(), board(), GpuGauge()


def battery() -> Gauge:
    """What the batteries give, while nothing else does: then that is what the whole machine draws."""

    def watts(reading: Reading) -> float | None:
        return reading.watts if reading.supply is Supply.BATTERY and not _is_board(reading) else None

    return Gauge(
        Method.BATTERY,
        "system",
        watts,
        "the power does not come from batteries alone, or they do not say how much it is",
    )


def board() -> Gauge:
    """What goes into a board that measures it."""
    return Gauge(
        Method.BOARD,
        "system",
        lambda reading: reading.watts if _is_board(reading) else None,
        "this board does not measure what it draws",
    )


def cpu_seconds(pid: int) -> float | None:
    """Processor time that the process has used, in steps of a hundredth of a second; None if it is gone, or
    no descriptor is left to look with."""
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return None
    return float(times.user + times.system)


def _is_board(reading: Reading) -> bool:
    origin = reading.origins.get("watts")
    return origin is not None and not origin.source.startswith("power_supply")
