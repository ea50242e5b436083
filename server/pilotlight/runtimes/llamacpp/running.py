"""A request in the llama.cpp runtime: checked and tokenized, then one running sequence per answer."""

from dataclasses import dataclass

from pilotlight.runtimes.batching import Sequence
from pilotlight.runtimes.llamacpp.sampler import Sampler
from pilotlight.runtimes.text import TextStream
from pilotlight.worker.protocol import Delta, Event, Generate


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that passed the checks, tokenized."""

    generate: Generate
    text: str | None
    """The prompt as text, where it came as text or messages."""
    tokens: list[int]
    max_tokens: int


class Running(Sequence):
    """One sequence of a request."""

    __slots__ = ("index", "prepared", "said", "sampler", "sent_tokens", "text")

    def __init__(self, prepared: Prepared, index: int, arrival: int, sampler: Sampler) -> None:
        super().__init__(prepared.tokens, arrival)
        self.prepared = prepared
        self.index = index
        self.sampler = sampler
        self.text = TextStream(prepared.generate.stop)
        self.said: list[str] = []
        """Text that went to the client, piece by piece."""
        self.sent_tokens = 0

    def say(self, text: str, events: list[Event]) -> None:
        """Send text, with the tokens that became text since the last time."""
        if text:
            self.said.append(text)
            events.append(Delta(self.id, self.index, text, self.num_generated - self.sent_tokens))
            self.sent_tokens = self.num_generated

    @property
    def id(self) -> int:
        return self.prepared.generate.id

    @property
    def keeps(self) -> bool:
        """Its tokens may be shared with other requests."""
        return self.prepared.generate.cache_prompt
