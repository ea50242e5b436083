"""Chooses the next token from a row of logits, in numpy, for runtimes whose own samplers do less.

All samplers, a generator of its own for every sequence, and logits that a test can look at; the libraries
offer some of the samplers, and one generator for all that run. Costs 20 µs greedily and about 1 ms for the
40 likeliest of 128k tokens, beside tens of milliseconds to compute them. Filters and their order are those of
llama.cpp, which a test holds it to.
"""

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pilotlight.core import Sampling

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.intp]

_FAR = 1e30
"""From all logits that are right, and with which sums and differences are finite."""


class Sampler:
    """Picks tokens for one sequence."""

    def __init__(self, sampling: Sampling, index: int, prompt: Sequence[int], banned: Sequence[int]) -> None:
        """`index` of the answer within its request shifts the seed; `banned` tokens are never picked."""
        self._sampling = sampling
        self._banned = np.fromiter(banned, np.intp)
        self._bias_tokens = np.array([token for token, _ in sampling.logit_bias], np.intp)
        self._bias = np.array([bias for _, bias in sampling.logit_bias], np.float32)
        self._recent = deque(prompt, maxlen=sampling.repeat_last_n)
        self._said: Counter[int] = Counter()
        seed = None if sampling.seed is None else (sampling.seed + index) % 2**64
        self._random = np.random.default_rng(seed)

    def pick(self, row: Floats) -> int:
        """The next token, from logits that are changed on the way."""
        if self._sampling.temperature == 0:
            self._adjust(row)
            token = int(row.argmax())
        else:
            tokens, likely = self.distribution(row)
            token = int(tokens[_draw(likely, self._random)])
        self._recent.append(token)
        self._said[token] += 1
        return token

    def distribution(self, row: Floats) -> tuple[Tokens, Floats]:
        """The tokens to draw from, and how likely each of them is."""
        if not np.isfinite(row.max()):
            # 16-bit numbers have overflowed: what is drawn is not worth much, but nobody else's answer ends.
            np.nan_to_num(row, copy=False, nan=-_FAR, posinf=_FAR, neginf=-_FAR)
        self._adjust(row)
        sampling = self._sampling
        tokens, logits = _likeliest(row, sampling)
        if sampling.typical_p < 1:
            tokens, logits = _typical(tokens, logits, sampling.typical_p)
        if sampling.top_p < 1:
            kept = _nucleus(logits, sampling.top_p)
            tokens, logits = tokens[kept], logits[kept]
        if sampling.min_p > 0:
            kept = np.flatnonzero(logits >= logits.max() + np.log(sampling.min_p))
            tokens, logits = tokens[kept], logits[kept]
        return tokens, _softmax(logits / np.float32(sampling.temperature))

    def _adjust(self, row: Floats) -> None:
        """Bias, bans and penalties."""
        sampling = self._sampling
        row[self._bias_tokens] += self._bias
        row[self._banned] = -np.inf
        if sampling.repeat_penalty != 1 and self._recent:
            recent = np.unique(np.fromiter(self._recent, np.intp))
            logits = row[recent]
            penalty = np.float32(sampling.repeat_penalty)
            row[recent] = np.where(logits > 0, logits / penalty, logits * penalty)
        if (sampling.presence_penalty or sampling.frequency_penalty) and self._said:
            said = np.fromiter(self._said, np.intp)
            counts = np.fromiter(self._said.values(), np.float32)
            row[said] -= counts * sampling.frequency_penalty + sampling.presence_penalty


def _likeliest(row: Floats, sampling: Sampling) -> tuple[Tokens, Floats]:
    """The `top_k` likeliest tokens with their logits, all of them if that is off."""
    if 0 < sampling.top_k < row.size:
        tokens = np.argpartition(row, -sampling.top_k)[-sampling.top_k :]
        return tokens, row[tokens]
    return np.arange(row.size), row


def _nucleus(logits: Floats, share: float) -> Tokens:
    """The likeliest that come to this share together, the likeliest first."""
    likely = _softmax(logits)
    # Only these are sorted: all that are less likely do not come to what may be left out. Half: for rounding.
    some = np.flatnonzero(likely >= 0.5 * (1 - share) / likely.size)
    order = some[np.argsort(-logits[some], kind="stable")]
    reached = np.cumsum(likely[order]) >= share
    return order[: int(reached.argmax()) + 1] if reached.any() else order


def _typical(tokens: Tokens, logits: Floats, share: float) -> tuple[Tokens, Floats]:
    """Those whose information content is nearest to the expected one, until their probabilities sum up."""
    likely = _softmax(logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(likely)
        expected = np.nansum(likely * surprise)
    order = np.argsort(np.abs(surprise - expected), kind="stable")
    passed = np.cumsum(likely[order]) > share
    kept = order[: int(passed.argmax()) + 1] if passed.any() else order
    return tokens[kept], logits[kept]


def _softmax(logits: Floats) -> Floats:
    likely = np.exp(logits - logits.max())
    scaled: Floats = likely / likely.sum()
    return scaled


def _draw(likely: Floats, random: np.random.Generator) -> int:
    """An index, as often as it is likely. Double precision: the sum over a vocabulary must come near 1."""
    sums = np.cumsum(likely, dtype=np.float64)
    return int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
