"""The types that a model's keys and values are kept in, as people write them.

One name for both ("q8_0"), one for keys and one for values ("q8_0/f16"), or "auto": the runtime chooses.
"""

from collections.abc import Iterable
from typing import Self

from msgspec import Struct

AUTO = "auto"

BLOCKS = {"q8_0": 32, "q5_1": 32, "q5_0": 32, "q4_1": 32, "q4_0": 32, "iq4_nl": 32}
"""Types of which so many values share a scale: a head's width has to be a multiple of it."""

NAMES = ("f32", "f16", "bf16", *BLOCKS)

BITS = {"q8_0": 8, "q4_0": 4}
"""In MLX's own format, which has two numbers of the model's type for each `KV_GROUP` values."""

KV_GROUP = 32


class KvTypes(Struct, frozen=True):
    """Of keys and of values."""

    keys: str = "f16"
    values: str = "f16"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for "auto". Raises `ValueError` with what would be right."""
        if text == AUTO:
            return None
        keys, slash, values = text.partition("/")
        if not {keys, values if slash else keys} <= set(NAMES):
            raise ValueError(
                f"must be {AUTO}, one of {', '.join(NAMES)}, or two of them for keys and values: q8_0/f16"
            )
        return cls(keys, values or keys)

    @property
    def has_quantized_values(self) -> bool:
        return self.values in BLOCKS

    def unsupported(self, supported: Iterable[str]) -> list[str]:
        """Those that are none of these."""
        return sorted({self.keys, self.values} - set(supported))
