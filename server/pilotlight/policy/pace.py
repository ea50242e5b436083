"""Bursts: how work that is to run a part of the time is divided into runs and rests.

Between single tokens a rest costs more than it saves: threads that spin for the next one, cold caches, clocks
that come up late. Runs are whole bursts, and a rest is as long as the run before it asks for. Pure.
"""

import math
from dataclasses import dataclass

FEWEST_TOKENS = 16
"""Of a run. Measured with llama.cpp on two cores: a rest after each token took 3.2 times the processor time
per token, one after 16 tokens 1.5 times."""

SHORTEST_S = 0.5
"""Of a run, and of a rest."""

LONGEST_RUN_S = 20.0
"""A large model's tokens come slowly, and a long prompt gives none for a while. A longer one counts as so
long."""


@dataclass(slots=True)
class Bursts:
    """Owns where background work is between run and rest."""

    _tokens: float = 0.0
    _ran_s: float = 0.0
    _rests_since: float | None = None

    def ran(self, tokens: float, seconds: float) -> None:
        """It made so many tokens in so much time."""
        self._tokens += tokens
        self._ran_s = min(LONGEST_RUN_S, self._ran_s + seconds)

    def rests(self, now: float, duty: float) -> bool:
        """Whether it rests from now on, to work `duty` of the time (0: not at all).

        A rest is as long as the duty of the moment asks for: if that has grown, it ends sooner.
        """
        rest_s = self._rest_s(duty)
        if self._rests_since is not None and now - self._rests_since >= rest_s:
            self._rests_since = None
            self._begin()
        elif self._rests_since is None and rest_s >= SHORTEST_S and (self._is_run or duty <= 0):
            self._rests_since = now
        elif self._is_run and duty >= 1:
            self._begin()
        return self._rests_since is not None

    def rest_left_s(self, now: float, duty: float) -> float | None:
        """Until the rest ends if duty stays; None if it does not rest, or only more duty ends it."""
        if self._rests_since is None or duty <= 0:
            return None
        return max(0.0, self._rests_since + self._rest_s(duty) - now)

    def _rest_s(self, duty: float) -> float:
        return self._ran_s * (1 / duty - 1) if duty > 0 else math.inf

    def _begin(self) -> None:
        self._tokens = self._ran_s = 0.0

    @property
    def _is_run(self) -> bool:
        """So much in a row is enough for a rest."""
        is_burst = self._tokens >= FEWEST_TOKENS and self._ran_s >= SHORTEST_S
        return is_burst or self._ran_s >= LONGEST_RUN_S
