"""Which tokens are computed in the next step: the heart of continuous batching.

Pure bookkeeping over sequences of token ids; knows neither a runtime's API nor text. The rules:

1. Every generating sequence gets its one token in every round.
2. The rest of the round goes to prompts, one after another, the one that will be done first first. Finishing
   prompts in turn instead of side by side halves the median wait for a first token at the same total speed.
3. A prompt lets at most as many tokens of later, shorter prompts pass as it is long itself (aging), and what
   is left of the piece in which it comes of age.
4. What yields waits for what does not, in its row: while anything interactive runs or waits, nothing else
   is computed.
5. The number of prompt tokens is chosen so that the round takes a bounded time, measured and not guessed.
"""

import math
import statistics
from collections import deque
from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar

SMALLEST_CHUNK = 16
"""Prompt tokens per step at least: below this a matrix product
costs about as much as for 16 (weights dominate)."""

CAREFUL_CHUNK = 64
"""Prompt tokens in the first step, before any was measured."""

ROWS = 16
"""Prompt tokens per step come in multiples of so many: matrix products work in groups of rows."""

NUM_COSTS = 5
"""Measurements that the cost of a prompt token is the median of: two may be far off, as after a pause of the
whole process."""

WORTH_WAITING = 32
"""Tokens of a running prompt worth waiting for instead of computing them a second time."""

JUST_BEGUN = 4
"""Tokens of an answer up to which its stream waits for others of its crowd. In the end it loses nothing by
it: a step for few costs nearly as much as one for many."""

WHOLE = 1.5
"""A prompt is computed to its end if it is at most so many times longer than the room that is left: each of
its pieces costs a pass over all weights. And so are all prompts of a crowd."""


class Sequence:
    """The tokens of one generation, and how many of them the runtime's memory holds."""

    __slots__ = (
        "arrival",
        "cached_tokens",
        "has_said",
        "num_computed",
        "num_prompt",
        "row",
        "tokens",
        "yields",
    )

    def __init__(self, prompt: list[int], arrival: int, *, yields: bool = False) -> None:
        self.tokens = list(prompt)
        """Prompt and answer."""
        self.num_prompt = len(prompt)
        self.num_computed = 0
        self.cached_tokens: int | None = None
        """Prompt tokens that were reused when the sequence first got a row; None before."""
        self.row: int | None = None
        """Where it stands in the runtime's memory; None while waiting."""
        self.arrival = arrival
        """Prompt tokens the worker had processed when this came: a clock that counts work, not seconds."""
        self.yields = yields
        """It is paused while others run that do not."""
        self.has_said = False
        """Some of its answer is text: its first tokens may be marks, or half a character."""

    @property
    def num_pending(self) -> int:
        """Tokens known and not yet computed."""
        return len(self.tokens) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def is_generating(self) -> bool:
        """All but the newest sampled token is computed."""
        return self.num_computed >= self.num_prompt and self.num_computed == len(self.tokens) - 1

    @property
    def has_just_begun(self) -> bool:
        """It may be one of a crowd whose prompts are still being computed."""
        return self.num_generated <= JUST_BEGUN

    def urgency(self, work_done: int) -> tuple[int, int]:
        """Smaller goes first: who waited for as much work as it
        brought, in order of arrival; then the least work."""
        if work_done >= self.arrival + self.num_prompt:
            return 0, self.arrival
        return 1, self.num_pending


S = TypeVar("S", bound=Sequence)


class Yielding(Protocol):
    """What may have to make way."""

    @property
    def yields(self) -> bool: ...


Y = TypeVar("Y", bound=Yielding)


def on_shift(sequences: Iterable[Y], *, is_held: bool) -> list[Y]:
    """Those that are computed now: all, unless some yield to others, or are held for others elsewhere."""
    sequences = list(sequences)
    urgent = [sequence for sequence in sequences if not sequence.yields]
    return urgent if urgent or is_held else sequences


def shares_prefix(a: list[int], b: list[int]) -> int:
    """Number of tokens at the start that are equal."""
    end = min(len(a), len(b))
    if a[:end] == b[:end]:
        return end
    low, high = 0, end
    while low < high:  # a[:low] == b[:low] and a[:high] != b[:high]
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def is_worth_waiting(sequence: Sequence, running: Iterable[Sequence], shared: int) -> bool:
    """More of its prompt than the `shared` tokens is being computed right now, for another."""
    return any(
        shares_prefix(other.tokens, sequence.tokens[:-1]) >= max(shared, other.num_computed) + WORTH_WAITING
        for other in running
        if not other.is_generating
    )


class Pace:
    """Measures what a prompt token costs and says how many fit a step."""

    def __init__(self, step_s: float, busy_step_s: float, crowd_step_s: float, largest: int) -> None:
        self._step_s = step_s
        self._busy_step_s = busy_step_s
        self._crowd_step_s = crowd_step_s
        self._largest = largest
        self._costs: deque[float] = deque(maxlen=NUM_COSTS)
        """Seconds per prompt token of the last steps."""

    def observe(self, num_tokens: int, seconds: float) -> None:
        """A step of `num_tokens` took `seconds`. Steps too small to
        tell the cost of a prompt token are left out."""
        if num_tokens >= SMALLEST_CHUNK:
            self._costs.append(seconds / num_tokens)

    def chunk(
        self, running: Collection[Sequence], prompts: Collection[Sequence], longest_s: float = math.inf
    ) -> int:
        """Prompt tokens for the next round, in whole groups of rows; fewer when streams wait for it.

        `prompts` are those to be computed. Every piece of a prompt costs a pass over the weights, so the
        more prompts there are, the longer streams wait for them, and the sooner that's over; longest those
        who came with them. No step takes longer than `longest_s`.
        """
        have_begun = all(sequence.has_just_begun and sequence.has_said for sequence in running)
        is_crowd = bool(running and prompts) and have_begun
        room = self._fit(self._wanted_s(running, len(prompts), is_crowd))
        if is_crowd and room < (left := sum(sequence.num_pending for sequence in prompts)) <= WHOLE * room:
            # A token now for those who have begun would be one that they are ahead of the others, to the end.
            room = left
        groups = round(min(room, self._fit(longest_s)) / ROWS)
        return min(max(SMALLEST_CHUNK, groups * ROWS), self._largest)

    def seconds(self, num_tokens: int) -> float:
        """What so many tokens of prompts take; infinite before any was measured."""
        return num_tokens * statistics.median_low(self._costs) if self._costs else math.inf

    def _wanted_s(self, running: Collection[Sequence], num_prompts: int, is_crowd: bool) -> float:
        if not running:
            return self._step_s
        if is_crowd:
            return min(2 * num_prompts * self._busy_step_s, self._crowd_step_s)
        return self._busy_step_s * max(1.0, num_prompts / 2)

    def _fit(self, step_s: float) -> int:
        """Tokens that take so long, of those that one call may compute; a careful number before any was
        measured."""
        if not self._costs:
            return CAREFUL_CHUNK
        return int(min(step_s / statistics.median_low(self._costs), self._largest))


def piece(sequence: Sequence, room: int, *, is_first: bool) -> int:
    """Tokens of a prompt to compute in a step that has room for so many; the first prompt gets its share.

    Those after it are computed whole or not at all.
    """
    if sequence.num_pending <= WHOLE * room:
        return sequence.num_pending
    return room if is_first else 0


def prompts(sequences: Iterable[S], work_done: int) -> list[S]:
    """Those whose prompt is not computed yet, the most urgent first; `work_done` as in `Sequence.arrival`."""
    waiting = [sequence for sequence in sequences if not sequence.is_generating]
    return sorted(waiting, key=lambda sequence: sequence.urgency(work_done))
