"""Linux: whether processors are slowed down right now because of heat.

By cooling devices that are processors or their clocks (fans cool without slowing anything), and on Intel by
the throttle counters. Of these the count moves when throttling begins, and the time only when it has ended.
"""

import re
from collections.abc import Iterator

from pilotlight.power.files import Files, Remembered
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence

THERMAL = "sys/class/thermal"
CPUS = "sys/devices/system/cpu"

SLOWING = re.compile(r"Processor\Z|(thermal-)?(cpufreq|devfreq)(-|\Z)")
"""Types of cooling devices that slow something down: ACPI's, and those of clocks."""

MOST_FILES = 32
"""Of each kind: on machines with more processors they all tell the same."""

HOLD_S = 10.0
"""For so long a counter that moved lets us guess that it is still so; it moves once, at the beginning."""

LONGEST_GAP_S = 5.0
"""What a counter did during a longer pause says nothing about now."""


class Throttling:
    """Remembers the counters."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._states = Remembered(self._find_states)
        self._counters = Remembered(self._find_counters)
        self._counts: dict[str, int] = {}
        self._read_at: float | None = None
        self._moved_at: float | None = None

    def read(self, now: float) -> Iterator[Finding]:
        """Whether it is so, by everything that tells."""
        found = [one for one in (self._cooling(now), self._counting(now)) if one is not None]
        if not found:
            yield Missing("is_throttled", "no cooling device or throttle counter tells it")
        yield from found

    def _cooling(self, now: float) -> Known | None:
        states = [self._files.number(path) for path in self._states.at(now)]
        known = [state for state in states if state is not None]
        return Known("is_throttled", max(known) > 0, "cooling devices") if known else None

    def _counting(self, now: float) -> Known | None:
        """None of the first look: there is nothing to compare with."""
        numbers = {path: self._files.number(path) for path in self._counters.at(now)}
        counts = {path: count for path, count in numbers.items() if count is not None}
        before, read_at = self._counts, self._read_at
        self._counts, self._read_at = counts, now
        if not counts or read_at is None or now - read_at > LONGEST_GAP_S:
            self._moved_at = None
            return None
        if any(count > before.get(path, count) for path, count in counts.items()):
            self._moved_at = now
        is_throttled = self._moved_at is not None and now - self._moved_at < HOLD_S
        is_guessed = is_throttled and self._moved_at != now
        confidence = Confidence.GUESSED if is_guessed else Confidence.DERIVED
        return Known("is_throttled", is_throttled, "throttle counters", confidence)

    def _find_states(self) -> list[str]:
        devices = self._files.names(THERMAL, "cooling_device")
        slowing = [one for one in devices if SLOWING.match(self._files.text(f"{THERMAL}/{one}/type") or "")]
        return [f"{THERMAL}/{one}/cur_state" for one in slowing[:MOST_FILES]]

    def _find_counters(self) -> list[str]:
        folders = [f"{CPUS}/{cpu}/thermal_throttle" for cpu in self._files.names(CPUS, "cpu")[:MOST_FILES]]
        paths = [f"{folder}/{kind}_throttle_count" for folder in folders for kind in ("core", "package")]
        return [path for path in paths if self._files.number(path) is not None]
