"""Finished sequences kept for the next request that begins alike, and the slots they occupy.

A slot is a sequence id of the runtime's memory. Copying a prefix between slots costs nothing there (cells are
shared), so a conversation's next turn and a common system prompt are computed once. Pure bookkeeping: the
caller does the copying and clearing it is told of. The least recently used makes way first.
"""

from dataclasses import dataclass

from pilotlight.runtimes.batching import shares_prefix


@dataclass(slots=True)
class Prefix:
    """Tokens whose computed state stands in `slot`."""

    slot: int
    tokens: list[int]
    last_used: int


class Prefixes:
    """Owns which slots are free and which hold a kept prefix;
    slots in use by running sequences are neither."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._kept: dict[int, Prefix] = {}
        self._clock = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def free(self) -> list[int]:
        return list(self._free)

    @property
    def kept(self) -> list[Prefix]:
        return list(self._kept.values())

    def match(self, prompt: list[int]) -> tuple[Prefix | None, int]:
        """The kept prefix that shares most with `prompt`, and how many tokens."""
        best, most = None, 0
        for prefix in self._kept.values():
            if (shared := shares_prefix(prefix.tokens, prompt)) > most:
                best, most = prefix, shared
        return best, most

    def touch(self, prefix: Prefix) -> None:
        """It was of use just now."""
        self._clock += 1
        prefix.last_used = self._clock

    def take(self) -> int | None:
        """A free slot, or None: one that is kept must make way first."""
        return self._free.pop() if self._free else None

    def give(self, slot: int) -> None:
        """A slot comes back, cleared."""
        self._free.append(slot)

    def keep(self, slot: int, tokens: list[int]) -> None:
        """A sequence ended; its slot now holds these tokens for later."""
        self._clock += 1
        self._kept[slot] = Prefix(slot, tokens, self._clock)

    def covered_by(self, tokens: list[int]) -> list[Prefix]:
        """Kept prefixes that say nothing `tokens` does not say as well."""
        return [kept for kept in self._kept.values() if kept.tokens == tokens[: len(kept.tokens)]]

    def drop(self, prefix: Prefix) -> None:
        """Forget it; its slot is free, and the caller clears it."""
        del self._kept[prefix.slot]
        self._free.append(prefix.slot)

    def oldest(self) -> Prefix | None:
        """The least recently used, if there is one: the first to make way."""
        return min(self._kept.values(), key=lambda prefix: prefix.last_used, default=None)

    def check(self, in_use: set[int]) -> None:
        """Every slot is free, kept or in use, and only one of them."""
        free, kept = set(self._free), set(self._kept)
        assert len(free) == len(self._free), f"a slot is free twice: {self._free}"
        assert not (free & kept or free & in_use or kept & in_use), f"{free=} {kept=} {in_use=} overlap"
        assert len(free | kept | in_use) == self._num_slots, f"lost a slot: {free=} {kept=} {in_use=}"
