"""Limits of which the tighter one counts. Pure values."""

from dataclasses import dataclass
from typing import TypeVar

N = TypeVar("N", int, float)


def least(a: N | None, b: N | None) -> N | None:
    """The tighter of two limits; None limits nothing."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads may compute, at most; the defaults limit nothing. `a | b` limits as both do."""

    count: int | None = None
    part: float | None = None
    """Of those that the model has otherwise, more than 0 and less than 1."""

    def __or__(self, other: "Threads") -> "Threads":
        return Threads(least(self.count, other.count), least(self.part, other.part))

    def of(self, own: int) -> int:
        """How many that leaves of a model's `own`: at least one."""
        part = own if self.part is None else int(self.part * own)
        return max(1, min(own, part, own if self.count is None else self.count))

    @property
    def words(self) -> list[str]:
        """Each limit as rules write it."""
        found = [] if self.count is None else [str(self.count)]
        return found if self.part is None else [*found, f"{self.part:.0%}"]


ALL_THREADS = Threads()
"""Limits nothing."""
