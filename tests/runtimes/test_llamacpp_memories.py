"""Models whose memory is not keys and values of all tokens: with sliding windows, and recurrent ones.

In mode `plain`, where rounding hardly depends on which tokens are computed together.
"""

from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from speaking import Bench, Speech, generate, llamacpp
from test_llamacpp_growth import layout, tokens

from gguf_factory import write_recurrent_gguf, write_windowed_gguf
from pilotlight.core import RequestClass
from pilotlight.runtimes.llamacpp.layout import UNIT
from pilotlight.runtimes.llamacpp.native import MICROBATCH, Llama
from pilotlight.worker.protocol import Generate

WINDOW = 32

NODES = 50
"""Of the graph of a microbatch, about: before each of them llama.cpp asks whether to go on."""

SYSTEM = tokens(60)
"""A beginning that requests share."""

FIRST = [*SYSTEM, *tokens(90, seed=1)]
"""Fits the least memory there is, but not quite with a long answer."""

OTHER = [*SYSTEM, *tokens(20, seed=2)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Once: native memory is not given back before the process ends."""
    return llamacpp(write_windowed_gguf(tmp_path_factory.mktemp("windowed") / "olmo.gguf", WINDOW), "plain")


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """As if freshly loaded."""
    loaded.forget()
    assert layout(loaded).num_cells == UNIT
    return loaded


@pytest.fixture
def recurrent(tmp_path: Path) -> Bench:
    return llamacpp(write_recurrent_gguf(tmp_path / "mamba.gguf"), "plain")


def fresh(bench: Bench, prompt: list[int]) -> str:
    """What it says if nothing is reused."""
    return bench.answer(generate(prompt, cache_prompt=False)).text


def long(prompt: list[int]) -> Generate:
    return generate(prompt, max_tokens=110, ignore_eos=True)


def begin(bench: Bench, asked: Generate) -> None:
    """Until its answer is longer than the window."""
    bench.start(asked)
    while len(bench.speech(asked).pieces) < WINDOW:
        bench.step()


def until_done(bench: Bench, asked: Generate) -> Speech:
    """While others run."""
    bench.start(asked)
    while not bench.speech(asked).done:
        bench.step()
    return bench.speech(asked)


def said(speech: Speech) -> tuple[str, int]:
    return speech.text, speech.end.cached_tokens


# --- sliding windows ---


def test_what_a_window_still_holds_is_reused(bench: Bench) -> None:
    """From what rests, and from what runs."""
    alone = fresh(bench, OTHER)
    bench.answer(generate(FIRST))
    assert said(bench.answer(generate(OTHER))) == (alone, len(SYSTEM))
    bench.forget()
    bench.runtime._decoder.reserve([4 * UNIT])
    begin(bench, long(FIRST))
    assert said(bench.answer(generate(OTHER))) == (alone, len(SYSTEM))


def test_what_a_window_has_left_behind_is_computed_anew(bench: Bench) -> None:
    """Memory grew while a long answer ran, and what rests has only the window at its end."""
    alone = fresh(bench, OTHER)
    bench.answer(long(FIRST))
    assert layout(bench).num_cells == 2 * UNIT
    assert said(bench.answer(generate(OTHER))) == (alone, 0)


def test_memory_may_grow_for_the_one_that_would_reuse(bench: Bench) -> None:
    """Then what runs has only its window, too."""
    alone = fresh(bench, OTHER)
    begin(bench, long(FIRST))
    assert layout(bench).num_cells == UNIT
    asked = until_done(bench, generate(OTHER))
    assert layout(bench).num_cells == 2 * UNIT
    assert said(asked) == (alone, 0)
    bench.finish()


def test_a_shorter_beginning_may_still_be_whole(bench: Bench) -> None:
    """It is reused instead of a longer one of which only the window is left."""
    alone = fresh(bench, OTHER)
    begin(bench, long(FIRST))
    until_done(bench, generate(SYSTEM[:40], max_tokens=1))
    assert said(until_done(bench, generate(OTHER))) == (alone, 40)
    bench.finish()


@pytest.mark.parametrize("window", [WINDOW, 2 * WINDOW])
def test_what_goes_on_needs_no_more_than_it_holds(
    bench: Bench, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation's next turn, after its memory grew; where windows are chunks that is less than one."""
    monkeypatch.setattr(Llama, "sliding_window", window)
    bench.answer(long(FIRST))
    rests = next(bench.runtime._memory.kept()).tokens
    turn = [*rests, *tokens(20, seed=3)]
    reused = said(bench.answer(generate(turn)))
    bench.forget()
    assert reused == (fresh(bench, turn), len(rests))


@pytest.mark.parametrize("patience", [0, NODES // 2, NODES + 20])
@pytest.mark.parametrize("count", [MICROBATCH, 2 * MICROBATCH])
def test_a_window_stays_whole_when_a_step_is_broken_off(bench: Bench, count: int, patience: int) -> None:
    """The second part of a step may be where the first one looked no more: then it is not broken off."""
    decoder, prompt = bench.runtime._decoder, tokens(130 + count)
    decoder.reserve([2 * UNIT, UNIT])
    decoder.read(0, prompt[:130], 0)
    alone = decoder.compute(0, [prompt[130:131]], [130])[0].copy()
    decoder.clear(0)
    # Its cells come first, and are free when it goes.
    decoder.read(1, tokens(100, seed=1), 0)
    decoder.read(0, prompt[:130], 0)
    decoder.clear(1)
    answers = chain([False] * patience, repeat(True))
    is_done = decoder.read(0, prompt[130:], 130, lambda: next(answers))
    assert is_done == (count > MICROBATCH or patience > NODES)
    if not is_done:
        np.testing.assert_array_equal(decoder.compute(0, [prompt[130:131]], [130])[0], alone)
    decoder.clear(0)


# --- recurrent models ---


def test_what_cannot_be_taken_back_is_not_broken_off(recurrent: Bench) -> None:
    """Neither of a prompt nor of an answer; whoever comes waits for it."""
    alone = recurrent.answer(generate(FIRST)).text
    asked = generate(FIRST, request_class=RequestClass.BACKGROUND)
    recurrent.start(asked)
    while recurrent.runtime.has_work:
        recurrent.step(is_wanted=lambda: True)
        recurrent.step()
    assert said(recurrent.speech(asked)) == (alone, 0)


def test_no_more_is_begun_ahead_than_can_be_taken_back(bench: Bench) -> None:
    """Else a request that comes meanwhile would wait for all of it."""
    assert bench.runtime._decoder.largest_interruptible == MICROBATCH
