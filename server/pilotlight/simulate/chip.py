"""How fast a chip decodes and what it draws, by clock and threads.

Decoding reads all weights for every token. Above the `knee` the memory is what limits it, and more clock or
more threads only draw more; below, it is the arithmetic. (arXiv 2501.08219: 2842 to 180 MHz costs 1 to 6 %
of decode latency on a large GPU; llama.cpp pull request 744: 5 to 6 of 8 threads are as fast as 8 on a
desktop CPU.)
"""

from enum import StrEnum

from msgspec import Struct

SHARPNESS = 6
"""Of the bend at the knee: two limits that act one after the other would have 1, a roofline infinity."""


ENOUGH = 0.95
"""Of the highest speed: what the fewest threads that are enough keep."""


class Saving(StrEnum):
    """How background work is run: as fast as it goes, with the fewest threads that are enough, or at a lower
    clock."""

    NONE = "none"
    THREADS = "threads"
    CLOCK = "clock"


class Setting(Struct, frozen=True):
    """How a chip is run: clock and threads, as parts of the most there are."""

    clock: float = 1.0
    threads: float = 1.0


class Chip(Struct, frozen=True):
    """Its constants: tokens per second when cold, and watts of the machine when idle, of all cores at the
    highest clock, and of the memory at the cold rate."""

    tokens_per_s: float
    knee: float
    """Part of its arithmetic that the memory keeps busy."""
    idle: float
    cores: float
    memory: float
    volts: float = 0.6
    """At the lowest clock, as a part of those at the highest; in between it rises evenly."""

    def rate(self, setting: Setting) -> float:
        """Tokens per second of one stream."""
        return self.tokens_per_s * self._speed(setting.clock * setting.threads) / self._speed(1.0)

    def watts(self, setting: Setting) -> float:
        """Of the whole machine while it decodes."""
        return self.idle + self._core_watts(setting) + self.memory * self.rate(setting) / self.tokens_per_s

    def fewest_threads(self, num_cores: int) -> Setting:
        """That are enough at the highest clock."""
        fitting = (Setting(threads=count / num_cores) for count in range(1, num_cores + 1))
        return next(one for one in fitting if self.rate(one) >= ENOUGH * self.tokens_per_s)

    def clock(self, watts: float) -> float:
        """The highest clock at which decoding with all threads draws at most `watts`; 0 if none does."""
        if watts >= self.watts(Setting()):
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if self.watts(Setting(middle)) <= watts else (low, middle)
        return low

    def _core_watts(self, setting: Setting) -> float:
        volts = self.volts + (1 - self.volts) * setting.clock
        return self.cores * setting.threads * setting.clock * volts**2

    def _speed(self, arithmetic: float) -> float:
        """Of memory and arithmetic together; 1 is the memory's alone."""
        if arithmetic <= 0:
            return 0.0
        return float((1 + (self.knee / arithmetic) ** SHARPNESS) ** (-1 / SHARPNESS))
