"""Many requests that come, go and leave in any order, in a memory too small for them."""

import random
from pathlib import Path

import pytest
from speaking import Bench, builtin, generate, llamacpp

from mlx_factory import write_random
from pilotlight.core import FinishReason, RequestClass, Sampling
from pilotlight.worker.protocol import Generate

CONTEXT = 256
"""The least llama.cpp makes."""


@pytest.fixture(scope="session")
def loaded_small(tiny_gguf: Path) -> Bench:
    """Eight sequences in a memory for one or two."""
    return llamacpp(tiny_gguf, context=CONTEXT, parallel=8)


@pytest.fixture
def bench(loaded_small: Bench) -> Bench:
    """As if freshly loaded."""
    loaded_small.forget()
    return loaded_small


def any_request(rnd: random.Random) -> Generate:
    """Prompts with few beginnings, of every length."""
    prompt = [rnd.randrange(2)] * rnd.randint(1, 120) + [rnd.randrange(5) for _ in range(rnd.randint(0, 100))]
    return generate(
        prompt,
        Sampling(temperature=rnd.choice([0, 1]), seed=rnd.randrange(100)),
        max_tokens=rnd.choice([1, 5, 40, None]),
        n=rnd.choice([1, 1, 2, 4]),
        cache_prompt=rnd.random() < 0.8,
        request_class=rnd.choice(list(RequestClass)),
    )


@pytest.fixture(scope="session")
def loaded_onnx() -> Bench:
    """The same size; its memory is as large as all of them need."""
    return builtin("onnx", context=CONTEXT, parallel=8)


@pytest.fixture(scope="session")
def loaded_mlx(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The same, of random weights: on a CPU, MLX takes its time."""
    folder = write_random(tmp_path_factory.mktemp("mlx"), num_hidden_layers=1)
    return Bench("mlx", folder, context=CONTEXT, parallel=8)


@pytest.fixture(params=["loaded_small", "loaded_onnx", "loaded_mlx"])
def any_bench(request: pytest.FixtureRequest) -> Bench:
    """Of each runtime."""
    bench: Bench = request.getfixturevalue(request.param)
    bench.forget()
    return bench


@pytest.mark.parametrize("seed", range(6))
def test_every_answer_ends_once(any_bench: Bench, seed: int) -> None:
    """Unless its request was cancelled; the memory is in order after every step, and nobody interactive waits
    for one that yields."""
    bench, rnd = any_bench, random.Random(seed)
    asked: dict[int, Generate] = {}
    cancelled: set[int] = set()
    for _ in range(150):
        if rnd.random() < 0.07:
            one = any_request(rnd)
            bench.start(one)
            asked[one.id] = one
        if asked and rnd.random() < 0.07:
            id = rnd.choice(list(asked))
            bench.runtime.cancel(id)
            cancelled.add(id)
            assert bench.runtime.state().fault is None
        bench.runtime.hold(rnd.random() < 0.1)
        if bench.runtime.has_work:
            is_urgent = bench.runtime._is_held or any(not s.yields for s in bench.runtime._sequences)
            events = bench.step(is_wanted=lambda: rnd.random() < 0.001)
            assert not (is_urgent and any(asked[event.id].request_class.yields for event in events))
    bench.runtime.hold(False)
    bench.finish()
    for id, one in asked.items():
        if id not in cancelled:
            for index in range(one.n):
                assert bench.speech(one, index).end.completion_tokens >= 1


def test_answers_that_do_not_fit_together_are_told_in_turn(bench: Bench) -> None:
    """Whole: what is set aside for others starts over and goes on where it was."""
    asked = [generate([token] * 60, max_tokens=120, cache_prompt=False) for token in range(6)]
    together = [speech.text for speech in bench.answers(asked)]
    assert all(bench.speech(one).end.completion_tokens == 120 for one in asked)
    assert all(bench.speech(one).end.reason is FinishReason.LENGTH for one in asked)
    assert len(set(together)) == 6


def test_a_sequence_that_starts_over_goes_on_where_it_was(tiny_gguf: Path) -> None:
    """Nothing is said twice, nothing is left out."""
    bench = llamacpp(tiny_gguf, "plain", context=CONTEXT)
    alone = bench.answer(generate("you", max_tokens=60, cache_prompt=False)).text
    asked = generate("you", max_tokens=60, cache_prompt=False)
    bench.start(asked)
    for _ in range(20):
        bench.step()
    (sequence,) = bench.runtime._sequences
    bench.runtime._memory.leave(sequence, keeps=False)
    sequence.num_computed = 0
    bench.finish()
    assert bench.speech(asked).text == alone


def test_the_kept_are_given_up_before_the_running(bench: Bench) -> None:
    """Memory that is only useful later."""
    for token in range(3):
        bench.answer(generate([token] * 60, max_tokens=1))
    assert bench.runtime.state().cached == 3
    speech = bench.answer(generate([9] * 200, max_tokens=50))
    assert speech.end.completion_tokens == 50
    assert bench.runtime.state().cells_used <= CONTEXT


def test_requests_wait_for_a_free_sequence(any_bench: Bench) -> None:
    """In the worker, should the daemon send more than it runs."""
    bench = any_bench
    asked = [generate([token], max_tokens=3, ignore_eos=True) for token in range(12)]
    for one in asked:
        bench.start(one)
    bench.step()
    state = bench.runtime.state()
    assert state.active <= 8
    assert state.active + state.waiting == 12
    bench.finish()
    assert all(bench.speech(one).end.completion_tokens == 3 for one in asked)
