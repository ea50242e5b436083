"""Limits of which the tighter one counts. Pure values."""

from typing import TypeVar

from msgspec import Struct

N = TypeVar("N", int, float)


def least(a: N | None, b: N | None) -> N | None:
    """The tighter of two limits; None limits nothing."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


class Threads(Struct, frozen=True):
    """How many threads may compute, at most; the defaults limit nothing. `a | b` limits as both do."""

    count: int | None = None
    part: float | None = None
    """Of those that the model has otherwise, more than 0 and less than 1."""
    is_efficient: bool = False
    """No more than are enough for nearly the best speed; that is about what waits for memory, so it limits
    an answer that runs alone, and neither prompts nor answers side by side."""

    def __or__(self, other: "Threads") -> "Threads":
        is_efficient = self.is_efficient or other.is_efficient
        return Threads(least(self.count, other.count), least(self.part, other.part), is_efficient)

    def of(self, own: int) -> int:
        """How many that leaves of a model's `own`: at least one."""
        part = own if self.part is None else int(self.part * own)
        return max(1, min(own, part, own if self.count is None else self.count))

    def alone(self, own: int, enough: int) -> int:
        """The same for an answer that runs alone; 0 is `enough` if that is not known."""
        return min(self.of(own), enough) if self.is_efficient and enough else self.of(own)

    @property
    def words(self) -> list[str]:
        """Each limit as rules write it."""
        count = [] if self.count is None else [str(self.count)]
        part = [] if self.part is None else [f"{self.part:.0%}"]
        return [*count, *part, *(["efficient"] if self.is_efficient else [])]


ALL_THREADS = Threads()
"""Limits nothing."""

EFFICIENT = Threads(is_efficient=True)
