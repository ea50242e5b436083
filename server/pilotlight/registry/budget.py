"""How many bytes all workers together may hold: what a person asked for, made of what the machine has.

Pure: readings come in as values. Knows no worker and no model.
"""

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

    `reserve` is what stays free for the user then; where little is left, half of that.
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
        free = memory.bytes_available + bytes_held
        # A small model is worth having on a full machine, too.
        return min(self.most(memory), free - min(free // 2, self.reserve.of(memory.bytes_total)))


def written(num_bytes: int) -> str:
    """For a person: "3.1 GiB", "640 MiB"."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:.1f} GiB"
    return f"{num_bytes / 2**20:.0f} MiB"
