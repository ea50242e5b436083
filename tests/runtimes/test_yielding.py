"""What yields is paused while something interactive runs, and goes on where it was, in every runtime."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from speaking import Bench, builtin, generate

from mlx_factory import write_random
from pilotlight.core import Prompt, RequestClass
from pilotlight.runtimes import stepping
from pilotlight.runtimes.batching import NUM_COSTS
from pilotlight.worker.protocol import Generate


@pytest.fixture(scope="session", params=["llamacpp", "onnx", "mlx"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Once per runtime; of random weights with MLX, which takes its time on a CPU."""
    if request.param != "mlx":
        return builtin(request.param)
    small = {"num_hidden_layers": 1, "max_position_embeddings": 2048}
    return Bench("mlx", write_random(tmp_path_factory.mktemp("mlx"), **small))


@pytest.fixture
def bench(loaded: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """As if freshly loaded, and left with nothing paused; no step is too brief to be broken off."""
    monkeypatch.setattr(stepping, "BRIEF_S", 0.0)
    loaded.forget()
    yield loaded
    assert loaded.runtime.num_paused == 0


def behind(tokens: list[int], **fields: Any) -> Generate:
    fields = {"max_tokens": 30, "ignore_eos": True, "request_class": RequestClass.BACKGROUND} | fields
    return generate(tokens, **fields)


def ahead(tokens: list[int], **fields: Any) -> Generate:
    return generate(tokens, **{"max_tokens": 5, "ignore_eos": True} | fields)


def begin(bench: Bench, *asked: Generate) -> None:
    """Until all of them have said something."""
    for one in asked:
        bench.start(one)
    while not all(bench.speech(one).pieces for one in asked):
        bench.step()


def num_said(bench: Bench, *asked: Generate) -> int:
    return sum(len(bench.speech(one).pieces) for one in asked)


def until_done(bench: Bench, asked: Generate) -> None:
    while not bench.speech(asked).done:
        bench.step()


def test_what_yields_is_paused_where_it_is(bench: Bench) -> None:
    """In its row, with all that is computed of it; and goes on when nothing interactive is left."""
    alone = bench.answer(behind([9] * 20, cache_prompt=False)).text
    others = [behind([9] * 20), behind([7] * 30)]
    begin(bench, *others)
    said, work_done = num_said(bench, *others), bench.runtime._work_done
    asked = ahead([5] * 25)
    bench.start(asked)
    assert bench.runtime.num_paused == 2
    until_done(bench, asked)
    assert num_said(bench, *others) == said
    assert bench.runtime.state().active == 2
    bench.finish()
    assert bench.speech(others[0]).text[:20] == alone[:20]
    assert bench.runtime._work_done == work_done + 25


def test_prompts_that_yield_are_paused_too(bench: Bench) -> None:
    """In the middle of them."""
    other = behind([9, 8, 7] * 200, max_tokens=1)
    bench.start(other)
    bench.step()
    assert not bench.speech(other).done
    asked = ahead([5] * 300)
    bench.start(asked)
    until_done(bench, asked)
    assert not bench.speech(other).done
    bench.finish()
    assert bench.speech(other).end.completion_tokens == 1


def test_somebody_gets_a_row_though_all_are_taken(bench: Bench) -> None:
    """One of the others is set aside, and not computed anew when its turn comes again."""
    others = [behind([token] * 40) for token in (6, 7, 8, 9)]
    begin(bench, *others)
    work_done = bench.runtime._work_done
    asked = ahead([5] * 25)
    bench.start(asked)
    until_done(bench, asked)
    assert bench.runtime.state().waiting == 1
    bench.finish()
    assert {bench.speech(one).end.completion_tokens for one in others} == {30}
    assert bench.runtime._work_done <= work_done + 25 + 4


def test_what_is_set_aside_in_its_prompt_was_not_cached(bench: Bench) -> None:
    """It finds its own work when it goes on; nobody had done that before."""
    for _ in range(NUM_COSTS):
        bench.runtime._pace.observe(100, 1.0)
    other = behind([9, 8, 7] * 20, max_tokens=1)
    bench.start(other)
    bench.step()
    assert (bench.runtime.state().active, bench.runtime.state().waiting) == (1, 0)
    begin(bench, *(ahead([token] * 25, max_tokens=40) for token in (2, 3, 4, 5)))
    assert (bench.runtime.state().active, bench.runtime.state().waiting) == (4, 1)
    bench.finish()
    assert bench.speech(other).end.cached_tokens == 0


def test_somebody_gets_the_memory_that_others_hold(bench: Bench) -> None:
    """As much of it as need be: rows hold so many tokens together."""
    others = [behind([token] * 250, max_tokens=60) for token in (6, 7, 8)]
    begin(bench, *others)
    asked = ahead([5] * 600)
    bench.start(asked)
    until_done(bench, asked)
    assert bench.runtime.state().waiting == 2
    bench.finish()
    assert {bench.speech(one).end.completion_tokens for one in others} == {60}


def test_who_fits_beside_what_is_paused_sets_none_of_it_aside(bench: Bench) -> None:
    """Though others who yield did not fit before."""
    other = behind([6] * 500, max_tokens=60)
    begin(bench, other)
    too_long = behind([7] * 600)
    bench.start(too_long)
    bench.step()
    assert (bench.runtime.state().active, bench.runtime.state().waiting) == (1, 1)
    asked = ahead([5] * 25)
    bench.start(asked)
    until_done(bench, asked)
    (running,) = bench.runtime._memory.running
    assert (running.id, running.num_computed > 500) == (other.id, True)
    bench.finish()


def test_nobody_waits_for_a_prompt_that_cannot_be_shared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be cut off, only the whole of it could be gone on from."""
    monkeypatch.setattr(type(bench.runtime._decoder), "can_cut", False)
    long, short = ahead([9, 8, 7] * 200), ahead([9, 8, 7] * 20, max_tokens=1)
    bench.start(long)
    bench.step()
    bench.start(short)
    until_done(bench, short)
    assert not bench.speech(long).done
    bench.finish()


def test_interactive_rows_stay_side_by_side(bench: Bench) -> None:
    """Though others are set aside for them: one run for all of them is faster."""
    others = [behind([token] * 40) for token in (6, 7, 8, 9)]
    begin(bench, *others)
    asked = [ahead([token] * 25, max_tokens=40) for token in (4, 5)]
    begin(bench, *asked)
    rows = [sequence.row for sequence in bench.runtime._sequences if not sequence.yields]
    assert sorted(row for row in rows if row is not None) == [2, 3]
    bench.finish()


def test_nobody_waits_for_the_prompt_of_one_that_is_paused(bench: Bench) -> None:
    """What is computed of it is used, the rest not waited for."""
    prompt = [9, 8, 7] * 200
    other = behind(prompt, max_tokens=1)
    bench.start(other)
    bench.step()
    asked = ahead(prompt)
    bench.start(asked)
    until_done(bench, asked)
    assert bench.speech(asked).end.cached_tokens > 0
    bench.finish()


def test_a_hold_pauses_what_yields(bench: Bench) -> None:
    """There is nothing to do then, and no less afterwards."""
    other = behind([9] * 20)
    begin(bench, other)
    bench.runtime.hold(True)
    assert (bench.runtime.has_work, bench.runtime.num_paused) == (False, 1)
    assert len(bench.answer(ahead([5] * 9)).pieces) > 0
    assert not bench.speech(other).done
    bench.runtime.hold(False)
    bench.finish()
    assert bench.speech(other).end.completion_tokens == 30


def test_what_is_paused_can_be_cancelled(bench: Bench) -> None:
    """In its row, and set aside."""
    others = [behind([token] * 40) for token in (6, 7, 8, 9)]
    begin(bench, *others)
    asked = ahead([5] * 25, max_tokens=40)
    begin(bench, asked)
    for one in others:
        bench.runtime.cancel(one.id)
        bench.step()
    bench.finish()
    assert not any(bench.speech(one).done for one in others)
    assert bench.speech(asked).end.completion_tokens == 40


def test_a_step_that_is_broken_off_changes_nothing(bench: Bench) -> None:
    """Neither of a prompt nor of tokens; where a library cannot be broken off, it just goes on."""
    asked = [behind([token] * 40, cache_prompt=False) for token in (6, 7)]
    alone = [bench.answer(one).text for one in asked]
    again = [behind([token] * 40, cache_prompt=False) for token in (6, 7)]
    for one in again:
        bench.start(one)
    while bench.runtime.has_work:
        events = bench.step(is_wanted=lambda: True)
        assert not (events and bench.runtime._decoder.is_interruptible)
        bench.step()
    assert [bench.speech(one).text[:20] for one in again] == [text[:20] for text in alone]


def test_a_brief_step_is_not_broken_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked in it either: that would make it longer for everybody."""
    monkeypatch.setattr(stepping, "BRIEF_S", 60.0)
    for _ in range(NUM_COSTS):
        bench.runtime._pace.observe(100, 0.1)
    begin(bench, other := behind([6] * 40))
    said = num_said(bench, other)

    def ask() -> bool:
        raise AssertionError("somebody was asked")

    bench.step(is_wanted=ask)
    assert num_said(bench, other) == said + 1
    bench.finish()


def test_a_token_may_take_long_where_prompts_are_brief(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for all weights, by itself."""
    monkeypatch.setattr(stepping, "BRIEF_S", 0.003)
    begin(bench, other := behind([6] * 40))
    for _ in range(NUM_COSTS):
        bench.runtime._pace.observe(100, 0.01)
    bench.runtime._decode_s = 0.02
    said = num_said(bench, other)
    bench.step(is_wanted=lambda: True)
    assert num_said(bench, other) == said + (not bench.runtime._decoder.is_interruptible)
    bench.finish()
    assert bench.runtime._decode_s != 0.02


def test_text_waits_for_tokens_that_come_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though their step is not brief; not for those of large models, nor for prompts."""
    monkeypatch.setattr(stepping, "BRIEF_S", 0.003)
    begin(bench, behind([6] * 40))
    found = []
    for prompt_s, decode_s in ((0.01, 0.002), (0.01, 0.006), (0.01, 0.02), (1.0, 0.002)):
        for _ in range(NUM_COSTS):
            bench.runtime._pace.observe(100, prompt_s)
        bench.runtime._decode_s = decode_s
        found.append((bench.runtime.is_brief, bench.runtime.is_fluent))
    assert found == [(True, True), (False, True), (False, False), (False, False)]
    bench.finish()


def test_breaking_off_is_no_error(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp says it is, in four lines that would be in the log for every request."""
    monkeypatch.setattr(stepping, "BRIEF_S", 0.0)
    bench = builtin("llamacpp")
    bench.start(behind([6] * 40))
    bench.step()
    capfd.readouterr()
    for _ in range(3):
        assert not bench.step(is_wanted=lambda: True)
    assert capfd.readouterr().err == ""


def test_rows_apart_are_broken_off_together_or_not_at_all(bench: Bench) -> None:
    """What was drawn for some of them would be lost, and computed twice."""
    first = behind([6] * 20, max_tokens=60)
    begin(bench, first)
    reading = behind([9, 8, 7] * 250, max_tokens=1)
    bench.start(reading)
    while bench.runtime.state().active < 2:
        bench.step()
    begin(bench, second := behind([7] * 20, max_tokens=60))
    for patience in range(1, 200, 3):
        asked = count()
        bench.step(is_wanted=lambda asked=asked, patience=patience: next(asked) > patience)
    bench.finish()
    assert {bench.speech(one).end.completion_tokens for one in (first, second)} == {60}


def test_nothing_is_begun_for_later_while_something_is_paused(bench: Bench) -> None:
    """It may hold all rows."""
    bench.answer(generate(Prompt(messages=({"role": "user", "content": "hi"},)), max_tokens=5))
    could = bench.runtime.has_ahead
    assert could is bench.runtime._decoder.is_interruptible
    others = [behind([token] * 40) for token in (6, 7, 8, 9)]
    begin(bench, *others)
    bench.runtime.hold(True)
    assert not bench.runtime.has_ahead
    bench.runtime.hold(False)
    bench.finish()
    assert bench.runtime.has_ahead is could


def test_what_is_interactive_is_never_broken_off(bench: Bench) -> None:
    """Those who come do not go before those who are there."""
    asked = ahead([5] * 200)
    bench.start(asked)
    for _ in range(20):
        if bench.runtime.has_work:
            bench.step(is_wanted=lambda: True)
    assert bench.speech(asked).end.completion_tokens == 5
