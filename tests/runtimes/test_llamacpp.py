"""llama.cpp on a tiny model of random weights: what a request asks for is what it gets."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from speaking import GREEDY, Bench, generate

from gguf_factory import write_tiny_gguf
from pilotlight.core import FinishReason, Prompt, Sampling
from pilotlight.errors import BadRequest, ContextOverflow
from pilotlight.runtimes.llamacpp.native import MODES

PROMPT = "you and the model"
"""Fewer tokens than the smallest chunk: computed in one piece whatever the machine's speed."""

HOT = Sampling(temperature=1.0, seed=1)


@pytest.fixture(scope="session")
def loaded(tiny_gguf: Path) -> Bench:
    """Loading it takes no time, but native memory is not given back before the process ends."""
    return Bench(tiny_gguf)


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """As if freshly loaded."""
    loaded.forget()
    return loaded


def test_loading_tells_how_far_it_is(bench: Bench) -> None:
    """Up to the whole."""
    assert bench.progress == sorted(bench.progress)
    assert bench.progress[-1] == pytest.approx(1)


def test_a_loaded_model_says_what_it_is(bench: Bench) -> None:
    """Numbers for people and for the scheduler."""
    info = bench.info
    assert (info.context, info.context_trained, info.parallel, info.threads) == (1024, 2048, 4, 1)
    assert info.has_chat_template
    assert info.num_parameters > 0


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_a_working_model(tiny_gguf: Path, mode: str) -> None:
    """The safe ones are needed where the fast one crashes."""
    bench = Bench(tiny_gguf, mode)
    assert bench.info.mode == mode
    assert bench.answer(generate(PROMPT)).end.completion_tokens == 24


def test_an_answer_ends_at_its_limit(bench: Bench) -> None:
    """With every token accounted for."""
    speech = bench.answer(generate(PROMPT, max_tokens=7))
    assert (speech.end.reason, speech.end.completion_tokens) == (FinishReason.LENGTH, 7)
    assert sum(piece.tokens for piece in speech.pieces) == 7


def test_an_answer_ends_where_the_model_ends_it(tmp_path: Path) -> None:
    """The end itself is no text."""
    bench = Bench(write_tiny_gguf(tmp_path / "ends.gguf", end_bias=3.0))
    speech = bench.answer(generate(PROMPT, HOT, max_tokens=500))
    assert speech.end.reason is FinishReason.STOP
    assert speech.end.completion_tokens < 500
    assert "<|im_end|>" not in speech.text


def test_an_answer_may_be_told_not_to_end(tmp_path: Path) -> None:
    """For measuring, most often."""
    bench = Bench(write_tiny_gguf(tmp_path / "ends.gguf", end_bias=9.0))
    speech = bench.answer(generate(PROMPT, HOT, max_tokens=50, ignore_eos=True))
    assert (speech.end.reason, speech.end.completion_tokens) == (FinishReason.LENGTH, 50)


def test_greedy_is_the_same_every_time(bench: Bench) -> None:
    """Alone, and with nothing to reuse."""
    texts = set()
    for _ in range(3):
        bench.forget()
        texts.add(bench.answer(generate(PROMPT)).text)
    assert len(texts) == 1


def test_the_same_seed_gives_the_same_text(bench: Bench) -> None:
    """Alone, and with nothing reused; another seed gives another."""
    fresh = [generate(PROMPT, replace(HOT, seed=seed), cache_prompt=False) for seed in (1, 1, 2)]
    first, again, other = [bench.answer(one).text for one in fresh]
    assert first == again != other


def test_answers_of_one_request_differ(bench: Bench) -> None:
    """Each draws for itself, and each ends once."""
    asked = generate(PROMPT, HOT, n=4)
    bench.answer(asked)
    assert len({bench.speech(asked, index).text for index in range(4)}) == 4


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

    def look(row: np.ndarray, output: int) -> int:
        rows.append(row.copy())
        return pick(row, output)

    sequence.sampler.pick = look  # type: ignore[method-assign]  # logits are nobody's business but a test's
    bench.finish()
    return rows[0]


def test_a_stop_string_ends_an_answer(bench: Bench) -> None:
    """Wherever tokens begin and end in it; it is not part of the text."""
    text = bench.answer(generate(PROMPT)).text
    assert len(text) > 8
    for start, end in ((2, 3), (3, 7), (1, 8)):
        bench.forget()
        speech = bench.answer(generate(PROMPT, stop=("\x00", text[start:end])))
        assert speech.text == text[: text.index(text[start:end])]
        assert speech.end.reason is FinishReason.STOP


def test_a_bias_forces_a_token(bench: Bench) -> None:
    """A greedy one and a drawn one."""
    token = bench.runtime._llama.tokenize("x", add_special=False)[0]
    for sampling in (GREEDY, HOT):
        asked = generate(PROMPT, replace(sampling, logit_bias=((token, 100.0),)), max_tokens=5)
        assert bench.answer(asked).text == "xxxxx"


def test_a_bias_bans_a_token(bench: Bench) -> None:
    """The one that would have come first."""
    first = bench.answer(generate(PROMPT, max_tokens=1)).text
    token = bench.runtime._llama.tokenize(first, add_special=False)[0]
    banned = replace(GREEDY, logit_bias=((token, -100.0),))
    assert bench.answer(generate(PROMPT, banned, max_tokens=1)).text != first


def test_penalties_change_a_greedy_answer(bench: Bench) -> None:
    """What it said before becomes less likely."""
    force = ((bench.runtime._llama.tokenize("x", add_special=False)[0], 30.0),)
    for penalty in ({"frequency_penalty": 2.0}, {"repeat_penalty": 10.0}):
        biased = replace(GREEDY, logit_bias=force, **penalty)
        text = bench.answer(generate(PROMPT, biased, max_tokens=60)).text
        assert text.startswith("x")
        assert text != "x" * 60


def test_half_characters_are_never_sent(tmp_path: Path) -> None:
    """A model that says any bytes still makes a text, whole at its end."""
    bench = Bench(write_tiny_gguf(tmp_path / "bytes.gguf", is_printable=False))
    pieces = [piece.text for piece in bench.answer(generate(PROMPT, HOT, max_tokens=300)).pieces]
    assert "".join(pieces).encode().decode() == "".join(pieces)
    assert all(pieces)


def test_threads_can_be_changed_while_it_speaks(bench: Bench) -> None:
    """From the next step on."""
    asked = generate(PROMPT, max_tokens=3)
    bench.start(asked)
    bench.step()
    bench.runtime.set_threads(2)
    bench.finish()
    assert bench.runtime.state().threads == 2
    assert bench.speech(asked).end.completion_tokens == 3
    bench.runtime.set_threads(1)


def test_messages_are_rendered_with_the_models_template(bench: Bench) -> None:
    """They cost as many tokens as their text."""
    messages = ({"role": "user", "content": "the model"},)
    rendered = "<|im_start|>user\nthe model<|im_end|>\n<|im_start|>assistant\n"
    chat = bench.start(generate(Prompt(messages=messages)))
    assert chat == bench.start(generate(rendered))
    bench.finish()


def test_tokens_are_taken_as_they_are(bench: Bench) -> None:
    """A prompt of ids."""
    tokens = bench.runtime._llama.tokenize(PROMPT, add_special=True)
    by_text = bench.answer(generate(PROMPT, cache_prompt=False)).text
    assert bench.answer(generate(tokens, cache_prompt=False)).text == by_text


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(bench: Bench) -> None:
    """The answer needs a token too."""
    with pytest.raises(
        ContextOverflow, match=r"has 1024 tokens; the context of this model holds 1024"
    ) as caught:
        bench.start(generate([1] * 1024))
    assert caught.value.param == "prompt"
    assert bench.answer(generate([1] * 1023)).end.completion_tokens == 1


def test_an_answer_ends_with_the_context(bench: Bench) -> None:
    """Whatever its limit is."""
    end = bench.answer(generate([1] * 1000, max_tokens=10**6)).end
    assert (end.reason, end.completion_tokens) == (FinishReason.LENGTH, 24)


REFUSED: dict[str, Callable[[Bench], object]] = {
    "the prompt is empty": lambda bench: bench.start(generate("")),
    "there is no token 296": lambda bench: bench.start(generate([1, bench.info.vocab])),
    "there is no token -1": lambda bench: bench.start(generate([-1])),
    "logit_bias: there is no token": lambda bench: bench.start(
        generate(PROMPT, replace(GREEDY, logit_bias=((10**6, 1.0),)))
    ),
    "n is 5; this model runs 4": lambda bench: bench.start(generate(PROMPT, n=5)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_done_is_refused(bench: Bench, reason: str) -> None:
    """Before it takes a sequence."""
    with pytest.raises(BadRequest, match=reason):
        REFUSED[reason](bench)
    assert not bench.runtime.has_work


def test_a_model_without_a_template_takes_no_messages(tmp_path: Path) -> None:
    """And says what to do."""
    bench = Bench(write_tiny_gguf(tmp_path / "plain.gguf", chat_template=None))
    assert not bench.info.has_chat_template
    with pytest.raises(BadRequest, match="no chat template; use /v1/completions"):
        bench.start(generate(Prompt(messages=({"role": "user", "content": "hi"},))))


def test_the_batch_lies_in_memory_as_llama_cpp_reads_it(bench: Bench) -> None:
    """Filled through numpy, read through ctypes."""
    batch = bench.runtime._llama.batch
    batch.clear()
    batch.add([5, 6], position=3, slot=2, wants_logits=False)
    batch.add([7], position=0, slot=1, wants_logits=True)
    native = batch.native
    assert native.n_tokens == 3
    assert [native.token[i] for i in range(3)] == [5, 6, 7]
    assert [native.pos[i] for i in range(3)] == [3, 4, 0]
    assert [native.seq_id[i][0] for i in range(3)] == [2, 2, 1]
    assert [ctypes.c_int8(native.logits[i]).value for i in range(3)] == [0, 0, 1]
    assert batch.outputs == [2]
