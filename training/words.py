"""Seeded vocabulary of the synthetic data, split so that evaluation meets only words never trained on."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TypeVar
from zlib import crc32

T = TypeVar("T")

_LISTS: dict[str, str] = tomllib.loads((Path(__file__).parent / "words.toml").read_text())
NAMES, CITIES, NOUNS, ADJECTIVES, VERBS, KEYS = (
    _LISTS[kind].split() for kind in ("names", "cities", "nouns", "adjectives", "verbs", "keys")
)
SMALL_WORDS = (
    "the",
    "a",
    "my",
    "your",
    "this",
    "that",
    "some",
    "with",
    "and",
    "or",
    "for",
    "in",
    "on",
    "at",
    "to",
    "of",
    "is",
    "are",
    "was",
    "we",
    "you",
    "they",
    "he",
    "she",
    "it",
    "not",
    "very",
)

# Parts of invented syllables.
_ONSETS = (
    "b",
    "br",
    "c",
    "ch",
    "cl",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sh",
    "sk",
    "sl",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "z",
    "y",
    "x",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "io", "oo", "ou", "y")
_CODAS = (
    "",
    "",
    "",
    "b",
    "ck",
    "d",
    "f",
    "g",
    "k",
    "l",
    "m",
    "n",
    "nd",
    "ng",
    "nk",
    "p",
    "r",
    "rt",
    "s",
    "sh",
    "st",
    "t",
    "x",
    "z",
)
_LOWER = "abcdefghijklmnopqrstuvwxyz"


def is_held_out(text: str) -> bool:
    """Whether a generated word or number belongs to evaluation: one in ten, by its checksum."""
    return crc32(text.lower().encode()) % 10 == 0


class Source:
    """A random source that knows its side of the split: training never sees what `held_out` yields."""

    def __init__(self, random: Random, held_out: bool = False) -> None:
        self.random = random
        self.held_out = held_out

    def chance(self, probability: float) -> bool:
        """True with the given probability, 0 to 1."""
        return self.random.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Any of the options, the same on both sides of the split."""
        return self.random.choice(options)

    def fresh(self, options: Sequence[T]) -> T:
        """One of this side's options: every fifth is held out, unless there are fewer than five."""
        if len(options) < 5:
            return self.random.choice(options)
        return self.random.choice([o for i, o in enumerate(options) if (i % 5 == 4) == self.held_out])

    def invented(self) -> str:
        """A pronounceable word that probably exists in no language."""
        while True:
            syllables = self.random.choice((1, 2, 2, 2, 3, 3))
            parts = [self.pick(kind) for _ in range(syllables) for kind in (_ONSETS, _VOWELS, _CODAS)]
            word = "".join(parts)
            if is_held_out(word) == self.held_out:
                return word

    def scramble(self) -> str:
        """Random letters and digits, 3 to 9 of them, as in codes and passwords."""
        letters = self.pick((_LOWER, _LOWER.upper(), "abcdefghijkmnpqrstuvwxyz0123456789"))
        while True:
            word = "".join(self.pick(letters) for _ in range(self.random.randint(3, 9)))
            if is_held_out(word) == self.held_out:
                return word

    def number(self, low: int, high: int) -> int:
        """A whole number in [low, high]; those of three digits and more obey the split."""
        while True:
            number = self.random.randint(low, high)
            if number < 100 or is_held_out(str(number)) == self.held_out:
                return number

    def name(self) -> str:
        """A person's name, now and then an invented one."""
        return self.invented().capitalize() if self.chance(0.3) else self.fresh(NAMES)

    def city(self) -> str:
        """A city's name, now and then an invented one."""
        return self.invented().capitalize() if self.chance(0.3) else self.fresh(CITIES)

    def noun(self) -> str:
        """A common thing, singular."""
        return self.fresh(NOUNS)

    def word(self) -> str:
        """Any word: common, invented or scrambled."""
        kind = self.random.random()
        if kind < 0.45:
            return self.fresh(self.pick((NOUNS, NOUNS, ADJECTIVES, VERBS)))
        if kind < 0.8:
            return self.invented()
        return self.scramble() if kind < 0.88 else str(self.number(0, 99999)) if kind < 0.94 else self.name()

    def phrase(self, low: int, high: int) -> str:
        """Between low and high words in no grammatical order, sometimes capitalised or punctuated."""
        count = self.random.randint(low, high)
        filled = count > 2
        text = " ".join(
            self.pick(SMALL_WORDS) if filled and self.chance(0.3) else self.word() for _ in range(count)
        )
        if self.chance(0.3):
            text = text[0].upper() + text[1:]
        return text + self.pick(("", "", "", ".", "!", "?")) if count > 1 else text

    def sentence(self) -> str:
        """A short grammatical sentence."""
        subject = self.pick(
            (
                f"the {self.noun()}",
                self.name(),
                f"a {self.fresh(ADJECTIVES)} {self.noun()}",
                f"my {self.noun()}",
            )
        )
        rest = self.pick(
            (
                f"is {self.fresh(ADJECTIVES)}",
                f"likes the {self.fresh(ADJECTIVES)} {self.noun()}",
                f"has {self.random.randint(2, 99)} {self.noun()}s",
                f"wants to {self.fresh(VERBS)} in {self.city()}",
                f"can {self.fresh(VERBS)} the {self.noun()}",
            )
        )
        text = f"{subject} {rest}"
        return text[0].upper() + text[1:] + "." if self.chance(0.7) else text

    def key(self) -> str:
        """A JSON key or parameter name in snake case."""
        kind = self.random.random()
        if kind < 0.5:
            return self.fresh(KEYS)
        if kind < 0.65:
            return self.noun()
        if kind < 0.85:
            # Also run together, so that a key that begins with another word is copied to its end.
            return self.noun() + self.pick(("_", "_", "")) + self.fresh(KEYS)
        return self.invented()
