"""Prefixes moved out of the runtime's memory: cells of a sequence that rests slow down those that run.

Holds computed state as opaque values, at most `max_tokens` tokens of them; the least recently used goes
first, of those that don't outlive the worker as long as there are any. Only the newest may be longer by
itself, until it was of use. Pure bookkeeping: the caller copies in and out.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pilotlight.runtimes.batching import shares_prefix


class Prefix(Struct, frozen=True, eq=False):
    """The tokens that a sequence left behind."""

    tokens: list[int]
    used_at: float
    """Unix seconds: when it was left, or last of use."""
    outlives: bool
    """It may be written to disk. Whoever goes on from one that may not leaves one of their own, which may."""


class Parked(Prefix, frozen=True, eq=False):
    """One with what the runtime needs to go on from it."""

    state: Any


P = TypeVar("P", bound=Prefix)


class Parking:
    """The parked prefixes, least recently used first."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._parked: list[Parked] = []

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def num_tokens(self) -> int:
        return sum(len(parked.tokens) for parked in self._parked)

    def put(self, parked: Parked) -> None:
        """Park it as the most recently used; what it replaces, and the oldest that no longer fit, go."""
        parked = self.replaced_by(parked)
        self._parked.append(parked)
        self._trim()

    def match(self, prompt: list[int], can_restore: Callable[[int, int], bool]) -> tuple[Parked | None, int]:
        """The one that shares most with `prompt`, and how many tokens; of those that `can_restore` them."""
        best, most = None, 0
        for parked in self._parked:
            shared = shares_prefix(parked.tokens, prompt)
            if shared > most and can_restore(len(parked.tokens), shared):
                best, most = parked, shared
        return best, most

    def touch(self, parked: Parked, now: float) -> None:
        """It was of use just now. What is too long to stay goes."""
        self.drop(parked)
        if len(parked.tokens) <= self.max_tokens:
            self._parked.append(replace(parked, used_at=now))
            self._trim()

    def drop(self, parked: Parked) -> None:
        """Forget it, if it is still there."""
        self._parked = [one for one in self._parked if one is not parked]

    def shrink(self, max_tokens: int, wanted: Parked | None = None) -> None:
        """Forget the oldest, for as long as there are more tokens; not the one that is `wanted` now."""
        while self.num_tokens > max_tokens and (others := [one for one in self._parked if one is not wanted]):
            self._drop_oldest(others)

    def newest_first(self) -> Iterator[Parked]:
        """All of them, the most recently used first."""
        return reversed(self._parked)

    def replaced_by(self, prefix: P) -> P:
        """Forget those that say nothing `prefix` does not say as well, but none that outlives it.

        Returns it: it outlives, too, if it is all that one said which does.
        """
        tokens = prefix.tokens
        if any(one.outlives and one.tokens == tokens for one in self._parked):
            prefix = replace(prefix, outlives=True)
        self._parked = [
            one
            for one in self._parked
            if one.tokens != tokens[: len(one.tokens)] or (one.outlives and not prefix.outlives)
        ]
        return prefix

    def _trim(self) -> None:
        while self.num_tokens > self.max_tokens and len(self._parked) > 1:
            self._drop_oldest(self._parked)

    def _drop_oldest(self, parked: list[Parked]) -> None:
        """Of these, of those that don't outlive the worker as long as there are any."""
        self.drop(next((one for one in parked if not one.outlives), parked[0]))
