"""The fewest threads with which the next token comes nearly as fast as with the best number of them.

Decoding waits for memory, so from some number on more threads only draw more. What else runs can make a
timing slower and never faster, so of each number the fastest block counts; numbers take turns, so that what
lasts longer hits all alike; and where blocks of one of the fastest numbers differ there is no result.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

from pilotlight.runtimes.batching import Sequence
from pilotlight.runtimes.rows import Decoder, Memory, Source

KEPT = 0.95
"""Of the best speed."""

HOPELESS = 0.75
"""A number with less of the speed of a larger one is not tried again, and those below it are not at all."""

SURE = 4
"""Blocks after which one is hopeless: some of them may have been disturbed."""

AGREED = 1.05
"""Half the blocks of a number take at most so much longer than its fastest."""

FEWEST_ROUNDS = 3

BLOCK_S = 0.03
"""What is timed at once, or one token that takes longer."""

MOST_S = 10.0
"""All of it; without a result by then there is none."""

PROBE = (0, 0)
"""Tokens that every vocabulary has."""


def candidates(most: int) -> list[int]:
    """What is tried, the most first: two numbers in each doubling."""
    steps = {power * part // 2 for power in (1 << bit for bit in range(most.bit_length())) for part in (2, 3)}
    return sorted({most, *(count for count in steps if count <= most)}, reverse=True)


@dataclass(slots=True)
class Trial:
    """One number of threads, and the seconds per token of its blocks."""

    threads: int
    times: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.times)

    @property
    def is_steady(self) -> bool:
        return median_low(self.times) <= AGREED * self.best


def find(most: int, block: Callable[[int], float], is_over: Callable[[], bool]) -> int | None:
    """`block` says how many seconds a token takes with so many threads; None if it `is_over` sooner."""
    if most == 1:
        return 1
    trials = [Trial(threads) for threads in candidates(most)]
    while not _is_settled(trials):
        for trial in tuple(trials):
            if is_over():
                return None
            trial.times.append(block(trial.threads))
            while (is_hopeless := _is_hopeless(trial, trials)) and len(trial.times) < SURE and not is_over():
                trial.times.append(block(trial.threads))
            if is_hopeless:
                trials = [other for other in trials if other.threads > trial.threads]
                break
    return min(trial.threads for trial in _fastest(trials))


def _is_settled(trials: list[Trial]) -> bool:
    """Of a number that is slower it does not matter how much: too many threads never come out the same."""
    is_timed = all(len(trial.times) >= FEWEST_ROUNDS for trial in trials)
    return is_timed and all(trial.is_steady for trial in _fastest(trials))


def _fastest(trials: list[Trial]) -> list[Trial]:
    """Those with nearly the best speed."""
    best = min(trial.best for trial in trials)
    return [trial for trial in trials if KEPT * trial.best <= best]


def _is_hopeless(trial: Trial, trials: list[Trial]) -> bool:
    larger = [other.best for other in trials if other.threads > trial.threads]
    return bool(larger) and HOPELESS * trial.best > min(larger)


class Efficiency:
    """Measures it with one model's decoder, while nothing runs."""

    def __init__(
        self, decoder: Decoder, memory: Memory[Any], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._decoder = decoder
        self._memory = memory
        self._clock = clock

    def measure(self, most: int, is_wanted: Callable[[], bool]) -> int:
        """Of `most` threads; 0 if it does not come out, or something else `is_wanted` meanwhile.

        The decoder has any number of threads afterwards. Raises `DecodeError`.
        """
        probe = Sequence(list(PROBE), arrival=0)
        if not self._memory.enter(probe, Source()):
            return 0
        assert probe.row is not None
        row, ends_at = probe.row, self._clock() + MOST_S

        def is_over() -> bool:
            return is_wanted() or self._clock() > ends_at

        try:
            return find(most, lambda threads: self._block(row, threads), is_over) or 0
        finally:
            self._memory.leave(probe, keeps=False)

    def _block(self, row: int, threads: int) -> float:
        """Seconds per token; the first one, for which threads are started, is not counted if it is short."""
        self._decoder.set_threads(threads, threads)
        if (took_s := self._token(row)) >= BLOCK_S:
            return took_s
        count, took_s = 0, 0.0
        while took_s < BLOCK_S:
            took_s += self._token(row)
            count += 1
        return took_s / count

    def _token(self, row: int) -> float:
        started = self._clock()
        self._decoder.compute(row, [PROBE[:1]], [0])
        took_s = self._clock() - started
        self._decoder.clear(row)
        return took_s
