"""How much slower answers are generated than this machine did when cold: heat noticed without any sensor.

Pure arithmetic over what workers say; time comes with every call. Speeds are compared with those of the same
model, loaded in the same way and mode, threads, number of sequences side by side and length of context, with
clocks that follow the same, and only where nothing but decoding happened: no prompt was computed, no sequence
came or went, nobody paused, and no other program took the processors.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from msgspec import Struct

from pilotlight.core import Model
from pilotlight.power.clocks import OTHERS, Clock
from pilotlight.power.reading import ThermalLevel

NUM_TOKENS = 8
"""Of each sequence: fewer make no speed."""

FEWEST_FRAMES = 4
"""Text of fast models comes in bundles, and of one or two bundles no speed can be told."""

NUM_RECENT = 9
"""What it does now is the median of so many speeds: five slow ones in a row, 40 tokens and what is left of
the window before, are noticed; four are nothing."""

AFTER_REST_S = 60.0
"""A machine that rested for so long is cold, ..."""

COLD_S = 30.0
"""... for so long."""

FEWEST_COLD = 24
MOST_COLD = 128
MOST_KEPT = 64
"""Kinds of work that are remembered; of each, some numbers."""

SMALLEST_CONTEXT = 512
"""Tokens; contexts up to this length are alike, and beyond it each doubling is another kind."""

LEAST = 0.1
"""Less is never called a slowdown."""

DEVIATIONS = 4.5
"""Nor is what so many standard deviations of single speeds explain, and more of them while few are known."""

OF_DIFFERENCES = 0.954
"""The median difference of two draws from a normal distribution, in standard deviations."""

FORGET_S = 30.0
"""What was found out is known for so long: background work that is paced rests for a while."""

MUCH = 0.25

Sequence = tuple[int, int]
"""The number of a request and the index of the answer."""


def level(slowdown: float) -> ThermalLevel:
    """What it tells of heat.

    Never that it is critical: a machine at half its speed is of use, and speed alone is no reason to refuse
    anybody.
    """
    if slowdown >= MUCH:
        return ThermalLevel.SERIOUS
    return ThermalLevel.FAIR if slowdown >= LEAST else ThermalLevel.NOMINAL


class Kind(Struct, frozen=True):
    """Work whose speed can be compared."""

    model: str
    mode: str
    threads: int
    num_sequences: int
    context: int
    """The power of two that the longest sequence does not exceed."""
    clock: Clock


@dataclass(slots=True)
class _Speeds:
    """Tokens per second and sequence; `jumps` are between one speed and the next, whatever the level:
    noise."""

    cold: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_COLD))
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_RECENT))
    jumps: deque[float] = field(default_factory=lambda: deque(maxlen=2 * MOST_COLD))

    def add(self, speed: float, is_cold: bool) -> None:
        if self.recent:
            self.jumps.append(abs(speed - self.recent[-1]))
        self.recent.append(speed)
        if is_cold or len(self.cold) < FEWEST_COLD:
            self.cold.append(speed)
        elif len(self.recent) == NUM_RECENT and median(self.recent) > (1 + LEAST) * self.best:
            self.cold.clear()  # that was not cold
            self.cold.extend(self.recent)

    @property
    def best(self) -> float:
        """The 90th percentile of cold speeds, by nearest rank."""
        ranked = sorted(self.cold)
        return ranked[min(len(ranked) - 1, int(0.9 * len(ranked)))]

    def is_suspect(self, latest: Iterable[float]) -> bool:
        """With these it might be slower."""
        speeds = [*self.recent, *latest][-NUM_RECENT:]
        return len(self.cold) >= FEWEST_COLD and median(speeds) <= (1 - LEAST) * self.best

    def slowdown(self) -> float | None:
        """0 to 1; None before there is enough to compare."""
        if len(self.cold) < FEWEST_COLD or len(self.recent) < NUM_RECENT:
            return None
        slower = 1 - median(self.recent) / self.best
        noise = median(self.jumps) / OF_DIFFERENCES / self.best
        doubt = 1 + 4 / len(self.jumps)
        return slower if slower >= max(LEAST, DEVIATIONS * doubt * noise) else 0.0


@dataclass(slots=True)
class _Window:
    """Tokens of the sequences of a model that run since nothing but decoding happens."""

    started_at: float
    last_at: float
    sequences: set[Sequence] = field(default_factory=set)
    """That said something: others are paused."""
    tokens: int = 0
    frames: int = 0
    longest_gap: float = 0.0

    def add(self, now: float, tokens: Mapping[Sequence, int]) -> None:
        self.longest_gap = max(self.longest_gap, now - self.last_at)
        self.last_at, self.tokens, self.frames = now, self.tokens + sum(tokens.values()), self.frames + 1
        self.sequences.update(tokens)

    @property
    def is_full(self) -> bool:
        return self.tokens >= NUM_TOKENS * len(self.sequences) and self.frames >= FEWEST_FRAMES

    @property
    def speed(self) -> float | None:
        """None if somebody paused: one gap was half of the time."""
        took = self.last_at - self.started_at
        if took <= 0 or self.longest_gap >= took / 2:
            return None
        return self.tokens / len(self.sequences) / took


@dataclass(slots=True)
class _Work:
    """What one model's worker does; `waiting` are the sequences whose prompt is computed still."""

    contexts: dict[Sequence, int] = field(default_factory=dict)
    waiting: set[Sequence] = field(default_factory=set)
    window: _Window | None = None
    model: Model | None = None
    """As the worker has it that spoke last."""


class _Measured(Struct, frozen=True):
    """A speed; it counts once it is known what other programs did meanwhile."""

    kind: Kind
    speed: float
    at: float


class Slowdown:
    """Hears of every sequence of every model; `suspect` is called when it matters what other programs do."""

    def __init__(self, suspect: Callable[[], None] = lambda: None) -> None:
        self._suspect = suspect
        self._works: dict[str, _Work] = {}
        self._speeds: OrderedDict[Kind, _Speeds] = OrderedDict()
        self._measured: deque[_Measured] = deque(maxlen=MOST_COLD)
        """Since the last look."""
        self._now: dict[str, tuple[float, float]] = {}
        self._is_slowed = False
        """At the last look, by ourselves."""
        self._clock = Clock.MAINS
        """At the last look."""
        self._rested_until = 0.0
        self._busy_at = 0.0

    def began(self, model: str, sequences: Iterable[Sequence], now: float) -> None:
        """A request is with its worker, and its prompt will be computed."""
        if now - self._busy_at >= AFTER_REST_S:
            self._rested_until = now
        self._busy_at = now
        work = self._works.setdefault(model, _Work())
        for sequence in sequences:
            work.contexts[sequence] = 0
            work.waiting.add(sequence)
        work.window = None

    def admitted(self, model: str, number: int, prompt_tokens: int) -> None:
        """How long the request's prompt is."""
        contexts = self._works[model].contexts
        contexts.update({sequence: prompt_tokens for sequence in contexts if sequence[0] == number})

    def said(
        self,
        model: Model,
        mode: str,
        tokens: Mapping[Sequence, int],
        threads: tuple[int, int],
        now: float,
    ) -> None:
        """One frame of a worker that has loaded the model in this mode: the new tokens of each sequence. So
        many `threads` compute one sequence alone, and so many several side by side."""
        self._busy_at = now
        work = self._works.setdefault(model.name, _Work())
        if not (work.model is None or model is work.model or model.is_loaded_as(work.model)):
            self._forget_speeds(model.name)
        work.model = model
        # Who ended with this frame is told before what it said.
        tokens = {sequence: count for sequence, count in tokens.items() if sequence in work.contexts}
        if not tokens:
            return
        for sequence, count in tokens.items():
            work.contexts[sequence] += count
        if work.waiting:
            work.waiting.difference_update(tokens)
            work.window = None if work.waiting else _Window(now, now)
            return
        if work.window is None:
            work.window = _Window(now, now)
            return
        work.window.add(now, tokens)
        if work.window.is_full:
            sequences = work.window.sequences
            longest = max(work.contexts[sequence] for sequence in sequences)
            if (speed := work.window.speed) is not None:
                num_sequences = len(sequences)
                alone, side_by_side = threads
                computing = alone if num_sequences == 1 else side_by_side
                kind = Kind(model.name, mode, computing, num_sequences, _bucket(longest), self._clock)
                self._measure(_Measured(kind, speed, now))
            work.window = _Window(now, now)

    def changed(self, model: str) -> None:
        """Some of its sequences pause from now on, or go on, or another number of threads computes them."""
        if (work := self._works.get(model)) is not None:
            work.window = None

    def ended(self, model: str, sequences: Iterable[Sequence]) -> None:
        """They have left their worker, however they ended."""
        if (work := self._works.get(model)) is not None:
            for sequence in sequences:
                work.contexts.pop(sequence, None)
                work.waiting.discard(sequence)
            work.window = None

    def forget(self, model: str) -> None:
        """It will not be asked again."""
        self._works.pop(model, None)
        self._forget_speeds(model)

    def value(
        self, now: float, load: float | None, clock: Clock = Clock.MAINS, *, is_slowed: bool = False
    ) -> float | None:
        """The worst of all models that said something lately, 0 to 1; None if nothing can be compared.

        `load` is the part of the processors that other programs have used since the last time (None: not
        known). Of a time in which that was much, nothing counts, nor of one in which it `is_slowed` by
        ourselves: while it is, nothing is known. When the `clock` changes, what is known begins anew.
        """
        was_slowed, self._is_slowed = self._is_slowed, is_slowed
        has_changed, self._clock = clock is not self._clock, clock
        if has_changed:
            self._start_anew()
        if has_changed or was_slowed or is_slowed or (load is not None and load > OTHERS):
            for work in self._works.values():
                work.window = None
        else:
            for one in self._measured:
                self._count(one)
        self._measured.clear()
        if is_slowed:
            return None
        return max((slower for at, slower in self._now.values() if now - at <= FORGET_S), default=None)

    def _forget_speeds(self, model: str) -> None:
        """They say nothing of another file, or of other settings, under its name."""
        self._now.pop(model, None)
        for kind in [kind for kind in self._speeds if kind.model == model]:
            del self._speeds[kind]
        for one in [one for one in self._measured if one.kind.model == model]:
            self._measured.remove(one)

    def _start_anew(self) -> None:
        """The last speeds may have been measured with other clocks already: a machine changes them before it
        tells."""
        self._now.clear()
        for speeds in self._speeds.values():
            speeds.recent.clear()

    def _measure(self, one: _Measured) -> None:
        self._measured.append(one)
        speeds, before = self._speeds.get(one.kind), self._now.get(one.kind.model)
        if speeds is not None and not self._is_slowed and (before is None or not before[1]):
            latest = [other.speed for other in self._measured if other.kind == one.kind]
            if speeds.is_suspect(latest):
                self._suspect()

    def _count(self, one: _Measured) -> None:
        speeds = self._speeds.setdefault(one.kind, _Speeds())
        self._speeds.move_to_end(one.kind)
        if len(self._speeds) > MOST_KEPT:
            self._speeds.popitem(last=False)
        speeds.add(one.speed, is_cold=one.at - self._rested_until <= COLD_S)
        if (slower := speeds.slowdown()) is not None:
            self._now[one.kind.model] = one.at, slower


def _bucket(tokens: int) -> int:
    return max(SMALLEST_CONTEXT, 1 << (max(tokens, 1) - 1).bit_length())
