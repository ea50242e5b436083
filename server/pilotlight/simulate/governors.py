"""What the operating system does against heat, which we neither control nor ask: it lowers the clock's limit.

Each governor is asked once per period with the temperature it watches (the true one: its sensor is in the
silicon) and the part of all cores' time that was used, and answers with the limit as a part of the highest
clock.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct


class Governor(Protocol):
    """A kind of throttling."""

    @property
    def edge(self) -> float:
        """Degrees from which on the highest clock is not for all cores."""

    def limit(self, celsius: float, load: float) -> float:
        """A period is over: the clock's limit from now on, 0 to 1."""


class Trip(Struct, frozen=True):
    """Where throttling begins, and the lowest limit it comes to."""

    celsius: float
    floor: float


@dataclass(slots=True)
class StepWise:
    """The Linux kernel's `gov_step_wise.c`: above the trip and rising, one state more; below and falling, one
    less; else as it was."""

    trip: Trip
    num_states: int = 10
    _state: int = 0
    _before: float | None = None

    @property
    def edge(self) -> float:
        return self.trip.celsius

    def limit(self, celsius: float, load: float) -> float:
        before = celsius if self._before is None else self._before
        if celsius >= self.trip.celsius and celsius > before:
            self._state = min(self._state + 1, self.num_states)
        elif celsius < self.trip.celsius and celsius < before:
            self._state = max(self._state - 1, 0)
        self._before = celsius
        return 1 - (1 - self.trip.floor) * self._state / self.num_states


@dataclass(slots=True)
class PowerAllocator:
    """The Linux kernel's `gov_power_allocator.c`, with the constants that it estimates by itself: from 10 K
    below the trip on it grants power by a PI controller, three times the sustainable one there and once at
    the trip. The clock's limit is the fastest of its states that draws no more at the load there is, so there
    is none as long as that is all the chip can draw (`cpufreq_cooling.c`, `cpufreq_power2state`).

    All power is in W above idle: `sustainable` what the machine can get rid of at the trip, `most` what it
    draws at the highest clock with all cores busy. `clock` tells the highest clock for a power.
    """

    trip: Trip
    sustainable: float
    most: float
    clock: Callable[[float], float]
    num_states: int = 10
    band: float = 10.0
    _integral: float = 0.0

    @property
    def edge(self) -> float:
        return self.trip.celsius - max(0.0, self.band / 2 * (self.most / self.sustainable - 1))

    def limit(self, celsius: float, load: float) -> float:
        granted = self._granted(self.trip.celsius - celsius)
        step = (1 - self.trip.floor) / self.num_states
        clock = 1.0 if granted >= self.most * load else self.clock(granted / load)
        return max(self.trip.floor, 1 - step * math.ceil((1 - clock) / step))

    def _granted(self, error: float) -> float:
        if error > self.band:
            self._integral = 0.0
            return math.inf
        gain = self.sustainable / self.band
        if error < 0:  # the kernel's integral_cutoff is 0: errors add up only above the desired temperature
            self._integral = max(-self.most, self._integral + 0.2 * gain * error)
        return max(0.0, self.sustainable + (2 if error > 0 else 1) * gain * error + self._integral)


@dataclass(slots=True)
class Cliff:
    """An opaque one, as on some phones and thin laptops: nothing until the trip, and then the lowest clock
    until it has cooled by `below` degrees, at least for `hold` periods."""

    trip: Trip
    below: float = 4.0
    hold: int = 60
    _is_low: bool = False
    _since: int = 0
    """Periods since it was last as hot as the trip."""

    @property
    def edge(self) -> float:
        return self.trip.celsius

    def limit(self, celsius: float, load: float) -> float:
        self._since += 1
        if celsius >= self.trip.celsius:
            self._is_low, self._since = True, 0
        elif celsius < self.trip.celsius - self.below and self._since >= self.hold:
            self._is_low = False
        return self.trip.floor if self._is_low else 1.0
