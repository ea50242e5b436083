"""How many bytes all workers together may hold: what a person asked for, made of what the machine has.

Pure: readings come in as values. Knows no worker and no model.
"""

import math
import re
from typing import Self

from msgspec import Struct

AUTO = "auto"

DEFAULT_RESERVE = "15%"

_UNITS = {"": 1, "B": 1} | {
    prefix.upper() + unit: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for unit, base in (("", 1024), ("iB", 1024), ("IB", 1024), ("B", 1000))
}
"""By their names in capitals; a bare "G" is what memory is sold by."""

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*|%)", re.IGNORECASE)

WRONG = 'must be bytes ("2GiB", "1500MB", 2147483648) or a part of the machine\'s memory ("50%", 0.5)'


class Memory(Struct, frozen=True):
    """A reading: what this machine, or the container we are in, has, and what of it nobody uses now."""

    bytes_total: int
    bytes_available: int


class Room(Struct, frozen=True):
    """What there is for all workers together, in bytes."""

    now: int
    """They may hold so much at this moment."""
    kept: int
    """Idle ones are ended only when all together hold more."""
    most: int
    """What `now` can ever come to."""
    settable: int | None = None
    """All the machine has, where a person has set `most`; None where it follows from the machine."""


class Amount(Struct, frozen=True):
    """Bytes, or a fraction of all there are."""

    bytes: int | None = None
    fraction: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ValueError` with what would be right. Numbers up to 1 with a point are fractions."""
        match = _AMOUNT.fullmatch(text.strip())
        if match is None:
            raise ValueError(WRONG)
        number, unit = match[1], match[2].upper()
        if float(number) <= 0:
            raise ValueError("must be more than 0")
        if unit == "%" or (not unit and "." in number):
            fraction = float(number) / (100 if unit else 1)
            if fraction > 1:
                raise ValueError(WRONG)
            return cls(fraction=fraction)
        if unit not in _UNITS:
            raise ValueError(WRONG)
        return cls(bytes=int(float(number) * _UNITS[unit]))

    def of(self, bytes_total: int) -> int:
        return int(bytes_total * self.fraction) if self.bytes is None else self.bytes


class Budget(Struct, frozen=True):
    """What was asked for; without an `amount` it follows what the machine has to spare.

    `reserve` is what stays free for the user then; where little is left, half of that. What is loaded may use
    half of what is to stay free, so that it stays while other programs take a little more.
    """

    amount: Amount | None
    reserve: Amount

    @classmethod
    def parse(cls, budget: str, reserve: str = DEFAULT_RESERVE) -> Self:
        """Raises `ValueError`."""
        amount = None if budget.strip().lower() == AUTO else Amount.parse(budget)
        return cls(amount, Amount.parse(reserve))

    def most(self, memory: Memory) -> int:
        """Bytes it can ever come to, on a machine that does nothing else."""
        if self.amount is not None:
            return self.amount.of(memory.bytes_total)
        return max(0, memory.bytes_total - self.reserve.of(memory.bytes_total))

    def now(self, memory: Memory, bytes_held: int) -> int:
        """Bytes it is at this moment, while the workers keep `bytes_held` from being available."""
        if self.amount is not None:
            return self.most(memory)
        return min(self.most(memory), _free(memory, bytes_held) - self._spared(memory, bytes_held))

    def room(self, memory: Memory, bytes_held: int) -> Room:
        """All of it, at this moment."""
        now, most = self.now(memory, bytes_held), self.most(memory)
        if self.amount is not None:
            return Room(now, now, most, memory.bytes_total)
        return Room(now, now + self._spared(memory, bytes_held) // 2, most)

    def _spared(self, memory: Memory, bytes_held: int) -> int:
        """What is to stay free."""
        # A small model is worth having on a full machine, too.
        return min(_free(memory, bytes_held) // 2, self.reserve.of(memory.bytes_total))


def _free(memory: Memory, bytes_held: int) -> int:
    """What others leave."""
    return memory.bytes_available + bytes_held


def written(num_bytes: int) -> str:
    """For a person: "3.1 GiB", "640 MiB"."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:.1f} GiB"
    return f"{num_bytes / 2**20:.0f} MiB"


def written_up(num_bytes: int) -> str:
    """The same for a person who is to set it: not less."""
    if num_bytes >= 2**30:
        return f"{math.ceil(num_bytes * 10 / 2**30) / 10:.1f} GiB"
    return f"{math.ceil(num_bytes / 2**20)} MiB"
