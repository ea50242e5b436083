"""How much memory a template holds of what it has made. Knows not what is too much."""

from sys import getrefcount, getsizeof
from typing import Any

STEP = 32 * 2**20
"""Bytes that are made from one look at what is let go of to the next."""

ENTRY = 200
"""Bytes that it takes to know of a value: more than most values."""


class Held:
    """What was made and may be held still; here, it is until the next look, so an address means one value."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[Any, int]] = {}
        self._num_bytes = 0
        self._next_look = STEP

    def add(self, value: Any, more: int = 0) -> int:
        """Bytes that are held with it at most; `more` is what it holds that is not seen from outside."""
        if id(value) not in self._values:
            num_bytes = getsizeof(value) + more + ENTRY
            self._values[id(value)] = (value, num_bytes)
            self._num_bytes += num_bytes
            if self._num_bytes > self._next_look:
                self._let_go()
        return self._num_bytes

    def _let_go(self) -> None:
        """Of what nothing else refers to; from the newest on, which may be what refers to older ones."""
        values, self._values, self._num_bytes = self._values, {}, 0
        kept, alone = [], 0
        values[0] = (object(), 0)
        while values:
            address, (value, num_bytes) = values.popitem()
            alone = alone or getrefcount(value)  # of that object: how many references are this function's own
            if getrefcount(value) > alone:
                kept.append((address, (value, num_bytes)))
                self._num_bytes += num_bytes
        self._values = dict(reversed(kept))
        self._next_look = self._num_bytes + STEP
