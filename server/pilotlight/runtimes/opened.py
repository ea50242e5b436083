"""What a runtime's library gives when it has loaded a model, as `stepping.RowRuntime` needs it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from pilotlight.chat.template import ChatTemplate
from pilotlight.core import Sampling
from pilotlight.runtimes.rows import Decoder, Floats
from pilotlight.runtimes.vocabulary import Vocabulary
from pilotlight.worker.protocol import Load


class Sampler(Protocol):
    """Chooses the tokens of one sequence."""

    def pick(self, row: Floats, /) -> int:
        """The next token, from logits that may be changed on the way."""


MakeSampler = Callable[[Sampling, int, Sequence[int], Sequence[int]], Sampler]
"""For a sequence: its request's sampling, which answer it is, its prompt, tokens never to pick."""


class Opened(Struct, frozen=True):
    """A model that its library has loaded, and what there is to say of it."""

    decoder: Decoder
    vocabulary: Vocabulary
    template: ChatTemplate | None
    context: int
    """Tokens it gets."""
    context_trained: int
    threads: int
    version: str
    description: str
    bytes_model: int
    make_sampler: MakeSampler
    num_parameters: int = 0
    """0: nobody counted."""
    variant: str = ""
    """Of how it is computed, where settings that do not count otherwise decide that."""


Open = Callable[[Load, Callable[[float], None]], Opened]
"""Loads a model with one library and says how far it is, up to 0.9. Raises `LoadError`."""
