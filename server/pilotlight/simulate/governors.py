"""What the operating system does against heat, which we neither control nor ask: it lowers the clock's limit.

Each governor is asked once per period with the temperature it watches (the true one: its sensor is in the
silicon), and answers with the limit as a part of the highest clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Governor(Protocol):
    """A kind of throttling."""

    def limit(self, celsius: float) -> float:
        """A period is over: the clock's limit from now on, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Trip:
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

    def limit(self, celsius: float) -> float:
        before = celsius if self._before is None else self._before
        if celsius >= self.trip.celsius and celsius > before:
            self._state = min(self._state + 1, self.num_states)
        elif celsius < self.trip.celsius and celsius < before:
            self._state = max(self._state - 1, 0)
        self._before = celsius
        return 1 - (1 - self.trip.floor) * self._state / self.num_states


@dataclass(slots=True)
class PowerAllocator:
    """The kernel's `power_allocator`: from 10 K below the trip on it grants power by a PI controller, three
    times the sustainable one there and once at the trip
    (Documentation/driver-api/thermal/power_allocator.rst).

    `clock` tells the clock that needs a given power (in W), `sustainable` is what the machine can get rid of.
    """

    trip: Trip
    sustainable: float
    clock: Callable[[float], float]
    band: float = 10.0
    _integral: float = 0.0

    def limit(self, celsius: float) -> float:
        error = self.trip.celsius - celsius
        if error > self.band:
            self._integral = 0.0
            return 1.0
        gain = (2 if error > 0 else 1) * self.sustainable / self.band
        if error < 0:  # the kernel's integral_cutoff is 0: errors add up only above the desired temperature
            self._integral += 0.01 * error
        granted = self.sustainable + gain * error + self._integral
        return min(1.0, max(self.trip.floor, self.clock(granted)))


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

    def limit(self, celsius: float) -> float:
        self._since += 1
        if celsius >= self.trip.celsius:
            self._is_low, self._since = True, 0
        elif celsius < self.trip.celsius - self.below and self._since >= self.hold:
            self._is_low = False
        return self.trip.floor if self._is_low else 1.0
