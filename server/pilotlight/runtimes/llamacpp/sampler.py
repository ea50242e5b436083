"""Chooses the next token: numpy for the greedy fast path, llama.cpp's sampler chain for everything else.

Each sequence has its own chain with its own generator, so a seed gives the same draws whatever else is in the
batch. What may differ is the logits themselves: kernels for other batch sizes round differently.
"""

import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from pilotlight.core import Sampling
from pilotlight.runtimes.llamacpp.native import Llama
from pilotlight.runtimes.rows import Floats

_RANDOM_SEED = 0xFFFFFFFF
"""`LLAMA_DEFAULT_SEED`: llama.cpp takes this one value as "choose for me"."""

ANSWER_TOKENS = 2**16
"""How far into an answer penalties look back: further than local models write. llama.cpp takes 4 bytes for
each that a penalty may look at, at once."""

_LEAST_LIKELY = 1e-30
"""Of the likeliest token's probability; what is below is never drawn."""


class Sampler:
    """Picks tokens for one sequence."""

    def __init__(
        self, llama: Llama, sampling: Sampling, index: int, prompt: Sequence[int], banned: Sequence[int]
    ):
        """`index` of the answer within its request shifts the seed; `banned` tokens are never picked."""
        self._llama = llama
        self._banned = np.array([*banned, *llama.vocabulary.suppressed], np.intp)
        self._bias_tokens = np.array([token for token, _ in sampling.logit_bias], np.intp)
        self._bias = np.array([bias for _, bias in sampling.logit_bias], np.float32)
        self._chain = None if _is_plain_greedy(sampling) else _chain(llama, sampling, index, prompt)
        if self._chain is not None:
            weakref.finalize(self, llama.library.llama_sampler_free, self._chain).atexit = False

    def pick(self, row: Floats) -> int:
        """The next token, from logits that are changed on the way."""
        if self._bias.size:
            row[self._bias_tokens] += self._bias
        if self._banned.size:
            row[self._banned] = -np.inf
        if self._chain is None:
            return int(row.argmax())
        return self._llama.sample(self._chain, row)


def _is_plain_greedy(sampling: Sampling) -> bool:
    penalties = (sampling.repeat_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    return sampling.temperature == 0 and penalties == (1.0, 0.0, 0.0)


def _chain(llama: Llama, sampling: Sampling, index: int, prompt: Sequence[int]) -> Any:
    """Penalties, then the filters from cheap to dear, then
    temperature and the draw, as llama.cpp orders them."""
    lib = llama.library
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())

    def add(sampler: Any) -> None:
        lib.llama_sampler_chain_add(chain, sampler)

    if sampling.repeat_penalty != 1.0 and sampling.repeat_last_n:
        last_n = min(sampling.repeat_last_n, len(prompt) + ANSWER_TOKENS)
        repeat = _penalties(llama, last_n, repeat=sampling.repeat_penalty)
        for token in prompt[-last_n:]:
            lib.llama_sampler_accept(repeat, token)
        add(repeat)
    if sampling.presence_penalty or sampling.frequency_penalty:
        # Never fed the prompt: OpenAI counts what the model itself has written.
        add(
            _penalties(
                llama,
                ANSWER_TOKENS,
                frequency=sampling.frequency_penalty,
                presence=sampling.presence_penalty,
            )
        )
    if sampling.temperature == 0:
        add(lib.llama_sampler_init_greedy())
        return chain
    if sampling.top_k:
        add(lib.llama_sampler_init_top_k(sampling.top_k))
    if sampling.typical_p < 1:
        # It takes the logarithm of each probability; with a banned token's, which is 0, it sorts at random.
        add(lib.llama_sampler_init_min_p(_LEAST_LIKELY, 1))
        add(lib.llama_sampler_init_typical(sampling.typical_p, 1))
    if sampling.top_p < 1:
        add(lib.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        add(lib.llama_sampler_init_min_p(sampling.min_p, 1))
    add(lib.llama_sampler_init_temp(sampling.temperature))
    add(lib.llama_sampler_init_dist(_seed(sampling.seed, index)))
    return chain


def _penalties(
    llama: Llama, last_n: int, *, repeat: float = 1.0, frequency: float = 0.0, presence: float = 0.0
) -> Any:
    init = llama.library.llama_sampler_init_penalties
    return init(llama.vocabulary.num_vocab, last_n, repeat, frequency, presence)


def _seed(seed: int | None, index: int) -> int:
    """32 bits for llama.cpp, never the value it takes for "random"."""
    if seed is None:
        seed = int.from_bytes(os.urandom(8))
    return (seed + index) % _RANDOM_SEED
