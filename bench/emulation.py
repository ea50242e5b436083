"""A machine emulated around a server that is real: what it computes becomes heat, the heat becomes files in a
tree like Linux's /sys, and an emulated governor slows the server down, for real.

Heat, chip, governor and thermometer are those of `pilotlight simulate`. No figure of it is one of a device.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pilotlight.simulate.body import Body, Heat
from pilotlight.simulate.chip import Setting
from pilotlight.simulate.governors import Governor
from pilotlight.simulate.platforms import FANLESS_LAPTOP, Platform
from pilotlight.simulate.sensors import Thermometer
from processes import cpu_s
from throttle import Throttle, throttling

TICK_S = 0.25
TICKS_PER_S = 4

WARMER = 20.0
"""The laptop throttles by the temperature of its lid. The emulated sensor is so much warmer, as one inside
is: who reads thermal zones believes no trip point below 50 degrees."""

NUM_STATES = 10
"""Of the cooling device."""


def laptop(times: float) -> Platform:
    """A laptop without a fan, whose temperatures change so many times as fast as they would."""
    body, trip = FANLESS_LAPTOP.body, FANLESS_LAPTOP.trip
    quick = Body(body.die / times, body.chassis / times, body.inner, body.outer, body.air + WARMER)
    return replace(FANLESS_LAPTOP, body=quick, trip=replace(trip, celsius=trip.celsius + WARMER))


class Tree:
    """The files that tell of heat and throttling, below a folder."""

    def __init__(self, root: Path, trip: float) -> None:
        thermal = root / "sys/class/thermal"
        self._zone, self._device = thermal / "thermal_zone0", thermal / "cooling_device0"
        for folder in (self._zone, self._device):
            folder.mkdir(parents=True)
        _write(self._zone / "type", "cpu-thermal")
        _write(self._zone / "trip_point_0_type", "passive")
        _write(self._zone / "trip_point_0_temp", f"{1000 * trip:.0f}")
        _write(self._device / "type", "Processor")
        _write(self._device / "max_state", str(NUM_STATES))

    def show(self, celsius: float, limit: float) -> None:
        """The temperature, and the limit on the clock, 0 to 1."""
        _write(self._zone / "temp", f"{1000 * celsius:.0f}")
        _write(self._device / "cur_state", f"{NUM_STATES * (1 - limit):.0f}")


def _write(file: Path, text: str) -> None:
    """At once, as the kernel's files change."""
    part = file.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(file)


@dataclass(slots=True)
class Emulation:
    """Owns the heat of the machine; `spent` tells the seconds of processor time that the server has taken."""

    platform: Platform
    tree: Tree
    throttle: Throttle
    spent: Callable[[], float]
    num_cpus: int
    """That the server uses when it runs as fast as it can."""
    celsius: list[float] = field(default_factory=list)
    """Each second."""
    limits: list[float] = field(default_factory=list)
    """Of the governor on the clock, each second."""
    _heat: Heat = field(init=False)
    _governor: Governor = field(init=False)
    _thermometer: Thermometer = field(init=False)
    _load: float = 0.0
    """Seconds of all processors that were used since the governor looked, which it does once a second."""

    def __post_init__(self) -> None:
        self._heat = Heat(self.platform.body, TICK_S, self.platform.chip.idle)
        self._governor = self.platform.govern(self.platform.governor)
        self._thermometer = Thermometer(random.Random("emulated"))
        self._look()

    @property
    def throttled(self) -> float:
        """The part of the time that the governor limited the clock."""
        return sum(limit < 1 for limit in self.limits) / len(self.limits)

    async def run(self) -> None:
        """Until cancelled."""
        due, spent_s = time.perf_counter(), self.spent()
        while True:
            for _ in range(TICKS_PER_S):
                due += TICK_S
                await asyncio.sleep(due - time.perf_counter())
                before, spent_s = spent_s, self.spent()
                self._heat.step(self._watts(spent_s - before))
            self._look()

    def _watts(self, cpu_s: float) -> float:
        """Of a tick in which the server took so much processor time."""
        chip, limit = self.platform.chip, self.limits[-1]
        busy_s = cpu_s / self.num_cpus / self._speed(limit)
        self._load += busy_s
        return chip.idle + busy_s / TICK_S * (chip.watts(Setting(limit)) - chip.idle)

    def _speed(self, limit: float) -> float:
        """What is left of the chip's speed under this limit on its clock."""
        return self.platform.chip.rate(Setting(limit)) / self.platform.chip.tokens_per_s

    def _look(self) -> None:
        """Once a second, the governor looks at the machine, and the files change."""
        felt = self._heat.chassis if self.platform.feels_chassis else self._heat.die
        limit, self._load = self._governor.limit(felt, self._load), 0.0
        if self.limits[-1:] != [limit]:
            self.throttle.limit(self._speed(limit))
        self.celsius.append(felt)
        self.limits.append(limit)
        self.tree.show(self._thermometer.read(felt), limit)


@contextmanager
def emulated(pid: int, platform: Platform, root: Path, num_cpus: int) -> Iterator[Emulation]:
    """The machine of the server with this process; call its `run`."""
    with throttling(pid, num_cpus) as throttle:
        yield Emulation(platform, Tree(root, platform.trip.celsius), throttle, lambda: cpu_s(pid), num_cpus)
