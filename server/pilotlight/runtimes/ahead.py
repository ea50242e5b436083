"""Begins the next turns of chats that ended, while nothing is asked for.

What stands before a user's next words is known: the end of the answer's turn and the header of the user's. A
template that drops the reasoning from earlier turns has the rest of the answer computed, too.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from pilotlight.chat.template import ChatTemplate
from pilotlight.errors import BadRequest
from pilotlight.runtimes.batching import Sequence
from pilotlight.runtimes.prompts import PIECE, Prompts
from pilotlight.runtimes.rows import Decoder, Memory
from pilotlight.runtimes.running import Prepared, Running

FURTHEST_AHEAD = 256
"""Tokens of a next turn to compute at most before anybody asks for it: nobody may ever."""

MOST_AHEAD = 8
"""Conversations that ended lately whose next turn may be begun."""


class Ending(Struct, frozen=True):
    """A chat's request and its whole answer."""

    prepared: Prepared
    answer: str


class Ahead:
    """The chats of one model that ended and whose next turn was not begun yet."""

    def __init__(
        self, decoder: Decoder, memory: Memory[Any], prompts: Prompts, template: ChatTemplate | None
    ) -> None:
        self._decoder = decoder
        self._memory = memory
        self._prompts = prompts
        self._template = template
        self._endings: deque[Ending] = deque(maxlen=MOST_AHEAD)

    def __bool__(self) -> bool:
        """There is something to do."""
        return bool(self._endings)

    def note(self, sequence: Running[Any]) -> None:
        """This one has ended by itself, and what it left can be found."""
        generate = sequence.prepared.generate
        if self._decoder.is_interruptible and generate.prompt.messages is not None:
            self._endings.append(Ending(sequence.prepared, sequence.answer))

    def work(self, is_wanted: Callable[[], bool]) -> None:
        """Begin them, the newest first, until `is_wanted`."""
        while self._endings and not is_wanted():
            ending = self._endings.pop()
            if not self._begin(ending, is_wanted):
                self._endings.append(ending)

    def _begin(self, ending: Ending, is_wanted: Callable[[], bool]) -> bool:
        """False if interrupted."""
        tokens = self._opening(ending)
        source = self._memory.find(tokens, ())
        piece = tokens[source.shared :]
        most = min(FURTHEST_AHEAD, self._decoder.largest_interruptible)
        if not (source.shared and 0 < len(piece) <= most):
            return True
        sequence = Sequence(tokens, arrival=0)
        if not self._memory.enter(sequence, source):
            return True
        assert sequence.row is not None
        # What it was to go on from may have been refused.
        is_there = sequence.num_computed == source.shared
        is_done = is_there and self._decoder.read(sequence.row, piece, source.shared, is_wanted)
        if is_done:
            sequence.num_computed = len(tokens)
        self._memory.leave(sequence, keeps=is_there)
        return is_done or not is_there

    def _opening(self, ending: Ending) -> list[int]:
        """What the next turn will begin with; nothing if the template knows of no next turn.

        Nor if much of its text is new: the step loop would wait, on a thread with an ordinary stack.
        """
        if self._template is None:
            return []
        generate = ending.prepared.generate
        messages = generate.prompt.messages or ()
        try:
            text = self._template.opening(messages, ending.answer, generate.prompt.template_kwargs)
            if not text.startswith(f"{ending.prepared.text}{ending.answer}"):
                self._prompts.remember_beginning(ending.prepared)
            return self._prompts.tokenize(generate, text, longest=PIECE)
        except BadRequest:
            return []
