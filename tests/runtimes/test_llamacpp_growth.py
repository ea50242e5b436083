"""Memory is taken as the requests need it, up to the context."""

import random
from pathlib import Path

import pytest
from speaking import Bench, generate

from gguf_factory import write_tiny_gguf
from pilotlight.runtimes.llamacpp.runtime import FIRST_CELLS

CONTEXT = 4 * FIRST_CELLS


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """In the mode whose numbers do not depend on how a prompt is cut into steps."""
    return Bench(write_tiny_gguf(tmp_path / "long.gguf", context=CONTEXT), "plain", context=CONTEXT)


def tokens(count: int, seed: int = 0) -> list[int]:
    """A prompt of so many tokens."""
    draw = random.Random(seed)
    return [draw.randrange(20, 200) for _ in range(count)]


def test_a_fresh_model_takes_little(bench: Bench) -> None:
    """And still says how long a request may be."""
    assert bench.runtime._llama.num_cells == FIRST_CELLS
    assert bench.info.context == CONTEXT


def test_a_long_prompt_gets_the_memory_it_needs(bench: Bench) -> None:
    """Twice as much until it fits."""
    speech = bench.answer(generate(tokens(FIRST_CELLS + 100), max_tokens=5))
    assert speech.end.completion_tokens == 5
    assert bench.runtime._llama.num_cells == 2 * FIRST_CELLS


def test_what_runs_goes_on_when_memory_grows(bench: Bench) -> None:
    """With the text it would have had alone."""
    alone = bench.answer(generate(tokens(100), max_tokens=40)).text
    bench.forget()
    asked = generate(tokens(100), max_tokens=40)
    bench.start(asked)
    for _ in range(5):
        bench.step()
    bench.answer(generate(tokens(FIRST_CELLS, seed=1), max_tokens=5))
    assert bench.speech(asked).text == alone


def test_an_answer_may_outgrow_the_memory(bench: Bench) -> None:
    """It grows in the middle of a sentence."""
    speech = bench.answer(generate(tokens(FIRST_CELLS - 100), max_tokens=200, ignore_eos=True))
    assert speech.end.completion_tokens == 200
    assert bench.runtime._llama.num_cells == 2 * FIRST_CELLS


def test_a_conversation_survives_the_growth(bench: Bench) -> None:
    """Parked meanwhile, and found again."""
    bench.answer(generate(tokens(300), max_tokens=5))
    bench.answer(generate(tokens(FIRST_CELLS, seed=1), max_tokens=5))
    assert bench.answer(generate(tokens(300), max_tokens=5)).end.cached_tokens == 299
