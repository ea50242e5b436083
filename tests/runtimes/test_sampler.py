"""Which tokens a `Sampling` leaves, and how likely each of them is then; numpy says what is right."""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pilotlight.core import Sampling
from pilotlight.runtimes.llamacpp.library import import_llama
from pilotlight.runtimes.llamacpp.native import Llama
from pilotlight.runtimes.llamacpp.sampler import ANSWER_TOKENS, Sampler

NUM_VOCAB = 12

Row = npt.NDArray[np.float32]

rows = st.lists(st.integers(-60, 60), min_size=NUM_VOCAB, max_size=NUM_VOCAB, unique=True).map(
    lambda tenths: np.array(tenths, np.float32) / 10
)
shares = st.floats(0.05, 0.95)


class Recording:
    """The library, and how far back its penalties were told to look."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.last_n: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def llama_sampler_init_penalties(self, num_vocab: int, last_n: int, *penalties: float) -> Any:
        self.last_n.append(last_n)
        return self._library.llama_sampler_init_penalties(num_vocab, min(last_n, 2**20), *penalties)


class FakeLlama:
    """As much of `Llama` as a sampler uses, without a model."""

    def __init__(self) -> None:
        self.library: Any = Recording(import_llama())
        self.vocabulary = SimpleNamespace(num_vocab=NUM_VOCAB, suppressed=())
        self.left: dict[int, float] = {}
        """The tokens that were left to draw from at the last draw, and their probabilities."""

    def sample(self, chain: Any, row: Row) -> int:
        lib = self.library
        data = (lib.llama_token_data * NUM_VOCAB)()
        for token, logit in enumerate(row):
            data[token].id, data[token].logit = token, logit
        array = lib.llama_token_data_array(data=data, size=NUM_VOCAB, selected=-1, sorted=False)
        lib.llama_sampler_apply(chain, ctypes.byref(array))
        chosen = int(array.data[array.selected].id)
        self.left = {array.data[i].id: array.data[i].p for i in range(array.size)}
        lib.llama_sampler_accept(chain, chosen)
        return chosen


class Draws:
    """Draws with one sampler from the same logits, again and again."""

    def __init__(self, row: Row, sampling: Sampling, prompt: tuple[int, ...] = (), index: int = 0) -> None:
        self.row = row
        self.llama = FakeLlama()
        self._sampler = Sampler(cast(Llama, self.llama), sampling, index, prompt, ())

    def pick(self) -> int:
        return self._sampler.pick(self.row.copy())

    def many(self, number: int) -> list[int]:
        return [self.pick() for _ in range(number)]


@pytest.fixture
def flat() -> Row:
    """Every token is as likely as any other."""
    return np.zeros(NUM_VOCAB, np.float32)


def probabilities(row: Row, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    scaled = row.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max())
    return cast(npt.NDArray[np.float64], powers / powers.sum())


def left(row: Row, **fields: Any) -> dict[int, float]:
    """Tokens that one draw chooses from."""
    draws = Draws(row, Sampling(seed=1, **fields))
    draws.pick()
    return draws.llama.left


def most_likely(order: npt.NDArray[np.intp], weights: npt.NDArray[np.float64], share: float) -> set[int]:
    """The first of `order` that together reach `share`; not decided where rounding decides."""
    sums = weights[order].cumsum()
    assume(np.abs(sums - share).min() > 1e-3)
    return set(order[: int((sums < share).sum()) + 1].tolist())


@given(row=rows, k=st.integers(1, 2 * NUM_VOCAB))
def test_top_k_leaves_the_k_most_likely(row: Row, k: int) -> None:
    """Or all there are."""
    assert set(left(row, top_k=k)) == set(np.argsort(-row)[:k].tolist())


@given(row=rows, p=shares)
def test_top_p_leaves_the_fewest_that_reach_p(row: Row, p: float) -> None:
    """The one that crosses it is among them."""
    assert set(left(row, top_p=p)) == most_likely(np.argsort(-row), probabilities(row), p)


@given(row=rows, p=shares)
def test_min_p_leaves_those_near_the_most_likely(row: Row, p: float) -> None:
    """In parts of its probability."""
    ratios = probabilities(row) / probabilities(row).max()
    assume(np.abs(ratios - p).min() > 1e-3)
    assert set(left(row, min_p=p)) == set(np.flatnonzero(ratios >= p).tolist())


@given(row=rows, p=shares)
def test_typical_p_leaves_those_nearest_to_the_expected_surprise(row: Row, p: float) -> None:
    """As many as reach p."""
    likely = probabilities(row)
    surprise = -np.log(likely)
    distance = np.abs(surprise - (likely * surprise).sum())
    assume(np.diff(np.sort(distance)).min() > 1e-3)
    assert set(left(row, typical_p=p)) == most_likely(np.argsort(distance), likely, p)


@given(row=rows, temperature=st.floats(0.1, 2))
def test_temperature_shapes_what_is_left(row: Row, temperature: float) -> None:
    """With every filter off, that is the whole vocabulary."""
    found = left(row, temperature=temperature)
    drawn = np.array([found[token] for token in range(NUM_VOCAB)])
    np.testing.assert_allclose(drawn, probabilities(row, temperature), atol=1e-4)


@given(row=rows)
def test_temperature_zero_is_greedy(row: Row) -> None:
    """Without a draw, and with penalties too."""
    for fields in ({}, {"presence_penalty": 0.01}):
        draws = Draws(row, Sampling(temperature=0, **fields))
        assert draws.pick() == int(row.argmax())


def test_draws_come_as_often_as_they_are_likely() -> None:
    """Within four standard deviations, for a fixed seed."""
    row = np.array([0, 1, 2] + [-100] * (NUM_VOCAB - 3), np.float32)
    draws = Draws(row, Sampling(seed=7))
    found = np.bincount(draws.many(4000), minlength=NUM_VOCAB) / 4000
    expected = probabilities(row)
    assert (np.abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9).all()


@pytest.fixture
def draws(flat: Row) -> Callable[..., Draws]:
    """Makes samplers over flat logits."""

    def make(*, index: int = 0, prompt: tuple[int, ...] = (), **fields: Any) -> Draws:
        return Draws(flat, Sampling(**fields), prompt, index)

    return make


def test_the_same_seed_gives_the_same_draws(draws: Any) -> None:
    """And another one others."""
    assert draws(seed=5).many(30) == draws(seed=5).many(30)
    assert draws(seed=5).many(30) != draws(seed=6).many(30)


def test_no_seed_gives_fresh_draws(draws: Any) -> None:
    """Every time."""
    assert draws(seed=None).many(30) != draws(seed=None).many(30)


@pytest.mark.parametrize("seed", [0, -1, 2**32 - 1, 2**32, 2**63 - 1, -(2**63)])
def test_every_seed_is_one(draws: Any, seed: int) -> None:
    """Also those that llama.cpp would take for "random"."""
    assert draws(seed=seed).many(30) == draws(seed=seed).many(30)


def test_answers_of_one_request_differ(draws: Any) -> None:
    """Each has its own generator under the request's seed."""
    assert draws(seed=5, index=0).many(30) != draws(seed=5, index=1).many(30)


def test_a_repeat_penalty_counts_the_prompt(draws: Any) -> None:
    """Its last tokens; earlier ones are as likely as before."""
    sampler = draws(repeat_penalty=2.0, repeat_last_n=2, prompt=(3, 4, 5), seed=1)
    sampler.row = sampler.row + 1
    sampler.pick()
    found = sampler.llama.left
    assert found[4] == found[5] < found[3] == found[0]


def test_a_repeat_penalty_takes_memory_for_what_there_may_be(draws: Any) -> None:
    """llama.cpp takes it at once: of all that can be asked, 8 GiB."""
    sampler = draws(repeat_penalty=2.0, repeat_last_n=2**31 - 1, prompt=(3, 4, 5), seed=1)
    assert sampler.llama.library.last_n == [3 + ANSWER_TOKENS]
    sampler.row = sampler.row + 1
    sampler.pick()
    found = sampler.llama.left
    assert found[3] == found[4] == found[5] < found[0]


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_presence_and_frequency_ignore_the_prompt(draws: Any, penalty: str) -> None:
    """OpenAI counts what the model itself has said."""
    sampler = draws(**{penalty: 1.5}, prompt=(3, 4, 5), seed=1)
    sampler.pick()
    assert len(set(sampler.llama.left.values())) == 1


def test_presence_counts_once_and_frequency_every_time(draws: Any) -> None:
    """In logits."""
    for field, times in (("presence_penalty", 1), ("frequency_penalty", 3)):
        sampler = draws(**{field: 0.5}, temperature=1.0, seed=1)
        sampler.row = sampler.row.copy()
        sampler.row[0] = 50
        assert sampler.many(3) == [0, 0, 0]
        sampler.row[0] = 0
        sampler.pick()
        found = sampler.llama.left
        other = next(found[token] for token in found if token)
        assert np.log(other / found[0]) == pytest.approx(0.5 * times, abs=1e-4)
