"""What may be restricted, field by field, from loose to tight.

Each field is ordered, and of several values the tightest counts. So it never matters in which order rules are
looked at, and one more rule never loosens anything. Knows no rules and no readings.
"""

from collections.abc import Iterator
from enum import IntEnum

from msgspec import Struct

from pilotlight.policy.limits import ALL_THREADS, Threads, least


class Admit(IntEnum):
    """Whether a request may begin."""

    NOW = 0
    DEFER = 1
    """It waits until it may, at most `Actions.max_wait_s`."""
    REJECT = 2

    @property
    def word(self) -> str:
        """As rules and headers write it."""
        return self.name.lower()


class Actions(Struct, frozen=True):
    """What is done with a request; the defaults leave it as it is. `a | b` restricts as both do."""

    admit: Admit = Admit.NOW
    max_wait_s: float | None = None
    """Seconds that a deferred request waits before it is refused."""
    is_small: bool = False
    """The model's `small` one answers in its place."""
    is_reasoning_off: bool = False
    """Its chat template is told `enable_thinking: false`; one without that switch does not listen."""
    max_tokens: int | None = None
    """Tokens of an answer, at most."""
    context: int | None = None
    """Tokens of prompt and answer together, at most."""
    is_eco: bool = False
    """The clocks and cores that take the least energy, however slow they are, while nothing else runs."""
    concurrency: int | None = None
    """Sequences of its class that a model runs side by side, at most."""
    keep_alive_s: float | None = None
    """Seconds that its model stays loaded afterwards, at most."""
    threads: Threads = ALL_THREADS
    """That compute it."""

    def __or__(self, other: "Actions") -> "Actions":
        return Actions(
            admit=max(self.admit, other.admit),
            max_wait_s=least(self.max_wait_s, other.max_wait_s),
            is_small=self.is_small or other.is_small,
            is_reasoning_off=self.is_reasoning_off or other.is_reasoning_off,
            max_tokens=least(self.max_tokens, other.max_tokens),
            context=least(self.context, other.context),
            is_eco=self.is_eco or other.is_eco,
            concurrency=least(self.concurrency, other.concurrency),
            keep_alive_s=least(self.keep_alive_s, other.keep_alive_s),
            threads=self.threads | other.threads,
        )

    def restricts(self, other: "Actions") -> bool:
        """It is at least as tight as the other one in every field."""
        return self | other == self

    @property
    def degrades(self) -> bool:
        """The answer may be another one than was asked for."""
        limits = self.max_tokens, self.context
        return self.is_small or self.is_reasoning_off or limits != (None, None)

    def words(self) -> Iterator[tuple[str, str]]:
        """Name and value of each field that restricts something, as rules write them."""
        if self.admit is not Admit.NOW:
            yield "admit", self.admit.word
        if self.admit is Admit.REJECT:
            return  # nothing is left to be restricted
        if self.is_small:
            yield "model", "small"
        if self.is_reasoning_off:
            yield "reasoning", "false"
        if self.is_eco:
            yield "clock", "eco"
        limits = {
            "max_tokens": self.max_tokens,
            "context": self.context,
            "concurrency": self.concurrency,
            "keep_alive": self.keep_alive_s,
            "max_wait": self.max_wait_s,
        }
        for name, limit in limits.items():
            if limit is not None:
                yield name, f"{limit:g}" if isinstance(limit, float) else str(limit)
        if self.threads != ALL_THREADS:
            yield "threads", ", ".join(self.threads.words)


NONE = Actions()
"""Restricts nothing."""
