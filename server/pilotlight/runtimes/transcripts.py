"""Remembers which tokens a conversation's text really was, so that its next turn finds them again.

Tokenizing an answer's text rarely, but not never, gives the tokens the model produced; from the first
difference on a cached prefix would be lost. A prompt that begins with a remembered text therefore takes its
tokens over. Pure bookkeeping. `find` may run beside `add` on another thread: the list is replaced, never
changed.
"""

from array import array

from msgspec import Struct

from pilotlight.runtimes.batching import shares_prefix

NUM_REMEMBERED = 32


class Transcript(Struct, frozen=True):
    """A prompt and its answer as the client saw it, and their tokens."""

    text: str
    tokens: "array[int]"
    """A tenth of what a list of them takes."""


class Transcripts:
    """The most recent transcripts, newest first."""

    def __init__(self) -> None:
        self._newest_first: tuple[Transcript, ...] = ()

    def add(self, transcript: Transcript) -> None:
        """Remember it; an older one that it continues or repeats goes."""
        others = (old for old in self._newest_first if not transcript.text.startswith(old.text))
        self._newest_first = (transcript, *others)[:NUM_REMEMBERED]

    def find(self, prompt: str) -> Transcript | None:
        """The longest remembered text that `prompt` begins with."""
        known = [old for old in self._newest_first if prompt.startswith(old.text)]
        return max(known, key=lambda old: len(old.text), default=None)

    def of(self, tokens: list[int]) -> Transcript | None:
        """The longest whose tokens these begin with; the last of them may be missing."""
        known = [
            old for old in self._newest_first if shares_prefix([*old.tokens], tokens) >= len(old.tokens) - 1
        ]
        return max(known, key=lambda old: len(old.tokens), default=None)
