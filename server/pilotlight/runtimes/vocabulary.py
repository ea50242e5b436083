"""What the bookkeeping of a runtime needs to know of a model's tokens."""

from typing import Protocol

THOUGHTS = frozenset(
    (
        "<think>",
        "</think>",
        "[THINK]",
        "[/THINK]",
        "<seed:think>",
        "</seed:think>",
        "<|channel>",
        "<channel|>",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
    )
)
"""Marks around reasoning, which is left in the text; in some vocabularies they are control tokens."""


class Vocabulary(Protocol):
    """A model's tokens. Only reads, so any thread may use it."""

    @property
    def num_vocab(self) -> int:
        """Token ids go from 0 to one below."""

    @property
    def adds_bos(self) -> bool:
        """The tokenizer puts a begin-of-text token before a text."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends a generation."""

    def special_text(self, name: str) -> str:
        """Text of the `bos` or `eos` token, "" if the vocabulary has none."""

    def is_control(self, token: int) -> bool:
        """It marks structure (a turn's end, a role) and stands for no text."""

    def control_text(self, token: int) -> str:
        """What becomes this control token where it stands in a text."""

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; text of special tokens becomes those tokens."""

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; of control tokens, only `THOUGHTS` have any."""
