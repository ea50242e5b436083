"""A request in a runtime: checked and tokenized, then one running sequence per answer."""

from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pilotlight.core import FinishReason, Sampling
from pilotlight.runtimes.batching import Sequence
from pilotlight.runtimes.text import TextStream
from pilotlight.runtimes.vocabulary import Vocabulary
from pilotlight.worker.protocol import Delta, Done, Event, FirstDelta, Generate

S = TypeVar("S")

SMALLEST = 1e-5
"""Of temperatures, below which it is greedy, and of repeat penalties: divided by less, logits may become
infinite, and nothing can be drawn from those."""


class Prepared(Struct, frozen=True):
    """A request that passed the checks, tokenized."""

    generate: Generate
    text: str | None
    """The prompt as text, where it came as text or messages."""
    tokens: list[int]
    max_tokens: int

    @property
    def sampling(self) -> Sampling:
        """What was asked, within what can be computed."""
        asked = self.generate.sampling
        temperature = asked.temperature if asked.temperature >= SMALLEST else 0.0
        return replace(asked, temperature=temperature, repeat_penalty=max(asked.repeat_penalty, SMALLEST))


class Running(Sequence, Generic[S]):
    """One sequence of a request, with the runtime's own kind of sampler."""

    __slots__ = ("index", "prepared", "said", "sampler", "sent_tokens", "text")

    def __init__(self, prepared: Prepared, index: int, arrival: int, sampler: S) -> None:
        super().__init__(prepared.tokens, arrival, yields=prepared.generate.request_class.yields)
        self.prepared = prepared
        self.index = index
        self.sampler = sampler
        self.text = TextStream(prepared.generate.stop)
        self.said: list[str] = []
        """Text that went to the client, piece by piece."""
        self.sent_tokens = 0

    @property
    def id(self) -> int:
        return self.prepared.generate.id

    @property
    def keeps(self) -> bool:
        """Its tokens may be shared with other requests."""
        return self.prepared.generate.cache_prompt

    @property
    def answer(self) -> str:
        """All text that went to the client."""
        return "".join(self.said)

    def take(self, token: int, vocabulary: Vocabulary, events: list[Event]) -> bool:
        """Its next token: say what became text of it; True if the answer ended with it."""
        self.tokens.append(token)
        if token in vocabulary.end_tokens:
            self.finish(FinishReason.STOP, events)
            return True
        self._say(self.text.push(vocabulary.piece(token)), events)
        if self.text.stopped:
            self.finish(FinishReason.STOP, events)
        elif self.num_generated >= self.prepared.max_tokens:
            self.finish(FinishReason.LENGTH, events)
        else:
            return False
        return True

    def finish(self, reason: FinishReason, events: list[Event]) -> None:
        """Say what was held back, and that this is the end."""
        self._say(self.text.flush(), events)
        if self.text.stopped:
            reason = FinishReason.STOP
        events.append(Done(self.id, self.index, reason, self.num_generated, self.cached_tokens or 0))

    def _say(self, text: str, events: list[Event]) -> None:
        """Send text, with the tokens that became text since the last time."""
        if not text:
            return
        num_tokens = self.num_generated - self.sent_tokens
        if self.said:
            events.append(Delta(self.id, self.index, text, num_tokens))
        else:
            events.append(FirstDelta(self.id, self.index, text, num_tokens, self.cached_tokens or 0))
        self.said.append(text)
        self.has_said = True
        self.sent_tokens = self.num_generated
