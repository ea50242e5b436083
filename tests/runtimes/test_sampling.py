"""The sampler in numpy leaves and draws what llama.cpp's samplers do."""

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_sampler import NUM_VOCAB, Draws, Row, rows

from pilotlight.core import Sampling
from pilotlight.runtimes.sampling import Sampler

# Penalties that never make two logits equal, which are tenths: either would be right then.
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 4, NUM_VOCAB, 100]),
    top_p=st.sampled_from([1.0, 0.9, 0.31]),
    min_p=st.sampled_from([0.0, 0.07, 0.6]),
    typical_p=st.sampled_from([1.0, 0.83, 0.2]),
    repeat_penalty=st.sampled_from([1.0, 1.37]),
    repeat_last_n=st.sampled_from([0, 2, 64]),
    presence_penalty=st.sampled_from([0.0, 0.633]),
    frequency_penalty=st.sampled_from([0.0, -0.4177]),
    seed=st.just(3),
)


class Twin(Draws):
    """llama.cpp's sampler beside ours, made to say what ours said."""

    def __init__(self, row: Row, sampling: Sampling, prompt: tuple[int, ...]) -> None:
        super().__init__(row, sampling, prompt)
        self.ours = Sampler(sampling, 0, prompt, ())

    def distributions(self) -> tuple[dict[int, float], dict[int, float]]:
        """Ours and llama.cpp's, by token; both have then drawn the same token."""
        tokens, likely = self.ours.distribution(self.row.copy())
        drawn = self.pick()
        self.ours._recent.append(drawn)
        self.ours._said[drawn] += 1
        return dict(zip(tokens.tolist(), likely.tolist(), strict=True)), self.llama.left


@given(row=rows, sampling=samplings, prompt=st.lists(st.integers(0, NUM_VOCAB - 1), max_size=5).map(tuple))
def test_what_is_left_is_what_llama_cpp_leaves(row: Row, sampling: Sampling, prompt: tuple[int, ...]) -> None:
    """Token by token, while an answer grows."""
    twin = Twin(row, sampling, prompt)
    for _ in range(4):
        ours, theirs = twin.distributions()
        assert ours == pytest.approx(theirs, abs=2e-5)


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_what_cannot_be_drawn_is_not_typical_either(share: float) -> None:
    """Biased so far away that its probability is 0, of which there is no logarithm."""
    bias = tuple((token, -200.0) for token in range(1, NUM_VOCAB, 2))
    row = np.linspace(4, 0, NUM_VOCAB).astype(np.float32)
    ours, theirs = Twin(row, Sampling(seed=1, top_k=0, typical_p=share, logit_bias=bias), ()).distributions()
    assert ours == pytest.approx(theirs, abs=2e-5)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("fields", [{}, {"top_k": 0, "min_p": 0.0}, {"typical_p": 0.5}])
def test_numbers_that_overflowed_draw_something(odd: float, every: int, fields: dict[str, Any]) -> None:
    row = np.linspace(4, 0, NUM_VOCAB).astype(np.float32)
    row[::every] = odd
    assert set(many(row, 9, **fields)) <= set(range(NUM_VOCAB))


@given(row=rows, sampling=samplings)
def test_temperature_zero_is_greedy(row: Row, sampling: Sampling) -> None:
    """After the penalties."""
    sampler = Sampler(replace(sampling, temperature=0), 0, (), ())
    assert sampler.pick(row.copy()) == int(row.argmax())


def many(row: Row, number: int, **fields: Any) -> list[int]:
    index = fields.pop("index", 0)
    sampler = Sampler(Sampling(**fields), index, (), ())
    return [sampler.pick(row.copy()) for _ in range(number)]


def test_draws_come_as_often_as_they_are_likely() -> None:
    """Within four standard deviations, for a fixed seed."""
    row = np.array([0, 1, 2] + [-100] * (NUM_VOCAB - 3), np.float32)
    found = np.bincount(many(row, 4000, seed=7), minlength=NUM_VOCAB) / 4000
    expected = np.exp(row.astype(float)) / np.exp(row.astype(float)).sum()
    assert (np.abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9).all()


@pytest.mark.parametrize("seed", [0, -1, 2**32, 2**63 - 1, -(2**63)])
def test_every_seed_gives_draws_of_its_own(seed: int) -> None:
    """The same every time; others for another answer of the request."""
    row = np.zeros(NUM_VOCAB, np.float32)
    assert many(row, 30, seed=seed) == many(row, 30, seed=seed) != many(row, 30, seed=seed, index=1)


def test_no_seed_gives_fresh_draws() -> None:
    """Every time."""
    row = np.zeros(NUM_VOCAB, np.float32)
    assert many(row, 30, seed=None) != many(row, 30, seed=None)


def test_bias_and_bans_come_first() -> None:
    """A banned token is never drawn, however it is favoured."""
    row = np.zeros(NUM_VOCAB, np.float32)
    sampler = Sampler(Sampling(logit_bias=((3, 100.0), (4, 90.0)), seed=1), 0, (), (3,))
    assert {sampler.pick(row.copy()) for _ in range(20)} == {4}


def test_a_window_of_no_tokens_penalizes_nothing() -> None:
    """repeat_last_n = 0 switches the penalty off."""
    row = np.ones(NUM_VOCAB, np.float32)
    sampler = Sampler(Sampling(repeat_penalty=5.0, repeat_last_n=0), 0, (1, 2), ())
    assert sampler._recent == deque(maxlen=0)
    assert np.ptp(sampler.distribution(row)[1]) == 0
