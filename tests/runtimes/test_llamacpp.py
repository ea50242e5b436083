"""llama.cpp on a tiny model of random weights: what it keeps beyond `test_alike`."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from msgspec.structs import replace
from speaking import GREEDY, Bench, generate, llamacpp

import gguf_factory
from gguf_factory import write_tiny_gguf
from pilotlight.core import Prompt, Sampling
from pilotlight.errors import BadRequest, ContextOverflow
from pilotlight.runtimes import prompts
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.llamacpp.native import MODES
from pilotlight.worker.protocol import Threads

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
    """A model that says any bytes still makes a text: what all of them come to when they are read at once."""
    bench = llamacpp(write_tiny_gguf(tmp_path / "bytes.gguf", is_printable=False))
    asked = generate(PROMPT, HOT, max_tokens=300)
    bench.start(asked)
    (sequence,) = bench.runtime._sequences
    bench.finish()
    answer = sequence.tokens[sequence.num_prompt :]
    said = b"".join(map(bench.runtime._prompts._vocabulary.piece, answer))
    speech = bench.speech(asked)
    assert speech.text == said.decode(errors="replace")
    assert any("\x7f" < character < "\ufffd" for character in speech.text), "whole ones of several bytes"
    assert all(piece.text for piece in speech.pieces)


def test_threads_can_be_changed_while_it_speaks(bench: Bench) -> None:
    """From the next step on."""
    asked = generate(PROMPT, max_tokens=3)
    bench.start(asked)
    bench.step()
    assert bench.runtime.set_threads(2, 3) == Threads(2, 3)
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


class Lengths:
    """A vocabulary, and the length of each text it is asked to tokenize."""

    def __init__(self, bench: Bench) -> None:
        self._vocabulary = bench.runtime._prompts._vocabulary
        self.seen: list[int] = []

    def tokenize(self, text: str, **fields: Any) -> list[int]:
        self.seen.append(len(text))
        return self._vocabulary.tokenize(text, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vocabulary, name)


@pytest.fixture
def lengths(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Lengths:
    """Of what is tokenized from here on."""
    watch = Lengths(bench)
    monkeypatch.setattr(bench.runtime._prompts, "_vocabulary", watch)
    return watch


@pytest.mark.parametrize("word", ["<|im_end|>", "é", " "])
def test_a_text_that_is_far_too_long_is_never_tokenized_as_a_whole(
    bench: Bench, lengths: Lengths, word: str
) -> None:
    """The first piece with too many tokens tells."""
    with pytest.raises(ContextOverflow, match="more than 1024 tokens; the context of this model holds 1024"):
        bench.start(generate(word * prompts.LONG * 2))
    assert max(lengths.seen) <= prompts.PIECE


def test_a_long_text_that_has_room_has_the_tokens_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pieces it was looked at in; one beyond all bounds has nearly those."""
    bench = llamacpp(write_tiny_gguf(tmp_path / "long.gguf"), context=2**17)
    asked, text = generate("unused"), "the model is " * (prompts.LONG // 10)
    whole = bench.tokenize(text)
    assert bench.runtime._prompts.tokenize(asked, text) == whole
    monkeypatch.setattr(prompts, "LONGEST", len(text) - 1)
    joined = bench.runtime._prompts.tokenize(asked, text)
    assert joined[:1000] == whole[:1000]
    assert len(whole) < len(joined) <= len(whole) + prompts.SLACK * (len(text) // prompts.PIECE)


def test_a_text_is_cut_where_no_markup_is() -> None:
    """Behind a line, if there is one in the piece."""
    lines = "<|im_start|>user\nHello<|im_end|>\n" * 2000
    cut = list(prompts.pieces(lines))
    assert ("".join(cut), len(cut) > 2) == (lines, True)
    assert all(piece.endswith("\n") and len(piece) <= prompts.PIECE for piece in cut)
    assert list(prompts.pieces("é" * (prompts.PIECE + 1))) == ["é" * prompts.PIECE, "é"]
    assert list(prompts.pieces("")) == []


def write_otherwise(
    monkeypatch: pytest.MonkeyPatch, method: str, write: Callable[[gguf.GGUFWriter], None]
) -> None:
    """Have files written with something else in the place of what this method adds."""
    monkeypatch.setattr(gguf.GGUFWriter, method, lambda writer, _: write(writer))


def test_the_name_of_a_template_is_no_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp gives one for a file that looks like Mistral Small and has none."""
    write_otherwise(
        monkeypatch, "add_tokenizer_pre", lambda writer: writer.add_string("tokenizer.ggml.pre", "tekken")
    )
    bench = llamacpp(write_tiny_gguf(tmp_path / "tekken.gguf", layers=40, chat_template=None))
    assert not bench.info.has_chat_template


@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "drawn"])
def test_suppressed_tokens_are_never_picked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    """Whoever made the model says so in the file; an id that there is not is passed over."""
    letters = [token for token in range(256) if token not in (65, 66)]
    write_otherwise(
        monkeypatch,
        "add_add_bos_token",
        lambda writer: writer.add_array("tokenizer.ggml.suppress_tokens", [*letters, 10**6]),
    )
    suppressing = llamacpp(write_tiny_gguf(tmp_path / "suppressing.gguf"))
    asked = generate(PROMPT, sampling, max_tokens=40, ignore_eos=True)
    suppressing.start(asked)
    (sequence,) = suppressing.runtime._sequences
    suppressing.finish()
    answer = sequence.tokens[sequence.num_prompt :]
    assert len(answer) == 40
    assert not set(answer) & set(letters)


def test_marks_of_reasoning_are_in_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a file has them as control tokens; others have no text."""
    monkeypatch.setattr(gguf_factory, "CONTROL", ("[THINK]", "[/THINK]", *gguf_factory.CONTROL))
    bench = llamacpp(write_tiny_gguf(tmp_path / "thinking.gguf"))
    vocabulary = bench.runtime._prompts._vocabulary
    tokens = vocabulary.tokenize("[THINK]a[/THINK]<|im_start|>", add_special=False)
    assert [vocabulary.piece(token) for token in tokens] == [b"[THINK]", b"a", b"[/THINK]", b""]
    assert [vocabulary.is_control(token) for token in tokens] == [True, False, True, True]


def test_an_answer_of_marks_of_reasoning_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are control tokens that have a text."""
    monkeypatch.setattr(gguf_factory, "CONTROL", ("[THINK]", *gguf_factory.CONTROL))
    bench = llamacpp(write_tiny_gguf(tmp_path / "thinking.gguf"))
    (mark,) = bench.tokenize("[THINK]")
    said = bench.answer(generate(PROMPT, replace(GREEDY, logit_bias=((mark, 100.0),)), max_tokens=3))
    assert said.text == 3 * "[THINK]"
    transcript = bench.runtime._prompts.transcripts.find(PROMPT + said.text)
    assert transcript is not None
    assert [*transcript.tokens][-3:] == [mark] * 3


def test_an_end_in_a_prompt_is_not_the_answers(bench: Bench) -> None:
    """Where there was no memory for a single token of that."""
    text = f"{PROMPT}<|im_end|>"
    asked = generate(text)
    bench.start(asked)
    bench.runtime._prompts.remember(*bench.runtime._sequences)
    bench.runtime.cancel(asked.id)
    transcript = bench.runtime._prompts.transcripts.find(text)
    assert transcript is not None
    assert [*transcript.tokens] == bench.tokenize(text)


def test_nothing_said_to_nothing_asked_is_remembered_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prompt begins with that, and would begin with two tokens that begin a text."""
    key = "tokenizer.ggml.add_bos_token"
    write_otherwise(monkeypatch, "add_add_bos_token", lambda writer: writer.add_bool(key, True))
    bench = llamacpp(write_tiny_gguf(tmp_path / "beginning.gguf"))
    (end,) = bench.tokenize("<|im_end|>")
    ended = bench.answer(generate("", replace(GREEDY, logit_bias=((end, 100.0),))))
    assert (ended.text, ended.end.completion_tokens) == ("", 1)
    for text in ("<|endoftext|><|im_start|>", "<|im_start|>"):
        assert bench.runtime.prepare(generate(text)).tokens == bench.tokenize(
            "<|im_start|>", add_special=True
        )


def test_a_vocabulary_without_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp would end the process at the first character that is no token."""
    write_otherwise(
        monkeypatch, "add_tokenizer_model", lambda writer: writer.add_string("tokenizer.ggml.model", "llama")
    )
    with pytest.raises(LoadError, match="no tokens for 117 of the bytes"):
        llamacpp(write_tiny_gguf(tmp_path / "bytes.gguf"))
