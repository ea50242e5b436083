"""How much one answer heats: learned from the answers there were, by recursive least squares.

While an answer is generated, the chip draws more than before: the die rises by `dP * R12` within seconds, and
then with the chassis by `dP * t / C2`. Neither power nor resistances are known, so the rise of headroom is
fitted to a constant, to the part of the time that background work was resting (there, all of the answer's
power is new), and to the seconds since it began. Pure.
"""

from collections import deque
from dataclasses import dataclass, field

Vector = tuple[float, float, float]

PRIOR: Vector = (0.1, 0.2, 0.002)
"""Headroom: at once, if nothing ran before, and per second. Rather too much than too little: the first
answers are to be fast ones, too."""

PRIOR_SPREAD: Vector = (0.1, 0.2, 0.004)

NOISE = 0.03
"""Of a rise: a degree, of the 30 that headroom spans."""

MEMORY = 0.998
"""What a sample counts once the next one has come: some twenty answers of half a minute are remembered."""

SETTLE_S = 3.0
"""Until the die has followed, and the sensor the die."""

NUM_ANSWERS = 8
"""Of which the longest is expected to come again."""

USUAL_S = 30.0
"""How long an answer takes, before there was one."""


def _prior_spread() -> list[list[float]]:
    return [[s * s if i == j else 0.0 for j in range(3)] for i, s in enumerate(PRIOR_SPREAD)]


@dataclass(slots=True)
class Fit:
    """The weights of three inputs, and how sure they are."""

    _weights: list[float] = field(default_factory=lambda: list(PRIOR))
    _spread: list[list[float]] = field(default_factory=_prior_spread)

    def guess(self, inputs: Vector) -> float:
        return _product(self._weights, inputs)

    def learn(self, inputs: Vector, output: float) -> None:
        """One sample."""
        self._forget()
        spread = [_product(row, inputs) for row in self._spread]
        scale = NOISE * NOISE + _product(spread, inputs)
        error = output - self.guess(inputs)
        for i in range(3):
            self._weights[i] += spread[i] / scale * error
            for j in range(3):
                self._spread[i][j] -= spread[i] * spread[j] / scale

    def _forget(self) -> None:
        """A little; but what no sample tells anything of becomes no less sure than it was at first."""
        grown = [self._spread[i][i] / MEMORY for i in range(3)]
        part = [min(1.0, s / max(g, 1e-12) ** 0.5) for s, g in zip(PRIOR_SPREAD, grown, strict=True)]
        for i in range(3):
            for j in range(3):
                self._spread[i][j] *= part[i] * part[j] / MEMORY


def _product(a: list[float], b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@dataclass(slots=True)
class Reserve:
    """What the next answer will add to headroom; owns what is known of those there were."""

    _fit: Fit = field(default_factory=Fit)
    _lasted: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_ANSWERS))

    def learn(self, rested: float, seconds: float, rise: float) -> None:
        """So many seconds after an answer began, headroom has risen by this much; background work rested for
        the part `rested` of the time before."""
        if seconds >= SETTLE_S:
            self._fit.learn((1.0, rested, seconds), rise)

    def ended(self, seconds: float) -> None:
        """An answer took so long."""
        self._lasted.append(seconds)

    def expected(self, rested: float) -> float:
        """What an answer as long as the longest of the last ones would add to headroom, 0 to 1."""
        seconds = max(self._lasted, default=USUAL_S)
        return min(1.0, max(0.0, self._fit.guess((1.0, rested, seconds))))
