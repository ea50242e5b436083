"""llama.cpp on a tiny model of random weights: what it keeps beyond `test_alike`."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from speaking import Bench, generate, llamacpp

from gguf_factory import write_tiny_gguf
from pilotlight.core import Prompt, Sampling
from pilotlight.errors import BadRequest
from pilotlight.runtimes.llamacpp.native import MODES

PROMPT = "you and the model"
"""Fewer tokens than the smallest chunk: computed in one piece whatever the machine's speed."""

HOT = Sampling(temperature=1.0, seed=1)


@pytest.fixture(scope="session")
def loaded(tiny_gguf: Path) -> Bench:
    """Loading it takes no time, but native memory is not given back before the process ends."""
    return llamacpp(tiny_gguf)


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """As if freshly loaded."""
    loaded.forget()
    return loaded


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_a_working_model(tiny_gguf: Path, mode: str) -> None:
    """The safe ones are needed where the fast one crashes."""
    bench = llamacpp(tiny_gguf, mode)
    assert bench.info.mode == mode
    assert bench.info.num_parameters > 0
    assert bench.answer(generate(PROMPT)).end.completion_tokens == 24


def test_greedy_is_the_same_every_time(bench: Bench) -> None:
    """Alone, and with nothing to reuse."""
    texts = set()
    for _ in range(3):
        bench.forget()
        texts.add(bench.answer(generate(PROMPT)).text)
    assert len(texts) == 1


def test_what_else_runs_changes_only_the_rounding(bench: Bench) -> None:
    """Logits of a prompt computed among others are those of it alone, up to a small part of their spread."""
    alone = _logits(bench, PROMPT)
    bench.forget()
    for words in ("the user is", "to and of the system", "you you you"):
        bench.start(generate(words, max_tokens=100))
    bench.step()
    together = _logits(bench, PROMPT)
    assert np.abs(alone - together).max() < 0.1 * alone.std()


def _logits(bench: Bench, prompt: str) -> np.ndarray:
    """Of the first token of the answer."""
    rows: list[np.ndarray] = []
    asked = generate(prompt, max_tokens=1)
    bench.start(asked)
    (sequence,) = [one for one in bench.runtime._sequences if one.id == asked.id]
    pick = sequence.sampler.pick

    def look(row: np.ndarray) -> int:
        rows.append(row.copy())
        return pick(row)

    sequence.sampler.pick = look  # type: ignore[method-assign]  # logits are nobody's business but a test's
    bench.finish()
    return rows[0]


def test_half_characters_are_never_sent(tmp_path: Path) -> None:
    """A model that says any bytes still makes a text, whole at its end."""
    bench = llamacpp(write_tiny_gguf(tmp_path / "bytes.gguf", is_printable=False))
    pieces = [piece.text for piece in bench.answer(generate(PROMPT, HOT, max_tokens=300)).pieces]
    assert "".join(pieces).encode().decode() == "".join(pieces)
    assert all(pieces)


def test_threads_can_be_changed_while_it_speaks(bench: Bench) -> None:
    """From the next step on."""
    asked = generate(PROMPT, max_tokens=3)
    bench.start(asked)
    bench.step()
    assert bench.runtime.set_threads(2, 3) == 2
    bench.finish()
    assert bench.runtime.state().threads == 2
    assert bench.speech(asked).end.completion_tokens == 3
    bench.runtime.set_threads(1, 1)


def test_tokens_are_taken_as_they_are(bench: Bench) -> None:
    """A prompt of ids."""
    tokens = bench.tokenize(PROMPT, add_special=True)
    by_text = bench.answer(generate(PROMPT, cache_prompt=False)).text
    assert bench.answer(generate(tokens, cache_prompt=False)).text == by_text


def test_a_model_without_a_template_takes_no_messages(tmp_path: Path) -> None:
    """And says what to do."""
    bench = llamacpp(write_tiny_gguf(tmp_path / "plain.gguf", chat_template=None))
    assert not bench.info.has_chat_template
    with pytest.raises(BadRequest, match="no chat template; use /v1/completions"):
        bench.start(generate(Prompt(messages=({"role": "user", "content": "hi"},))))


def test_the_batch_lies_in_memory_as_llama_cpp_reads_it(bench: Bench) -> None:
    """Filled through numpy, read through ctypes."""
    batch = bench.runtime._decoder._llama.batch
    batch.clear()
    batch.add([5, 6], position=3, row=2, wants_logits=False)
    batch.add([7], position=0, row=1, wants_logits=True)
    native = batch.native
    assert native.n_tokens == 3
    assert [native.token[i] for i in range(3)] == [5, 6, 7]
    assert [native.pos[i] for i in range(3)] == [3, 4, 0]
    assert [native.seq_id[i][0] for i in range(3)] == [2, 2, 1]
    assert [ctypes.c_int8(native.logits[i]).value for i in range(3)] == [0, 0, 1]
