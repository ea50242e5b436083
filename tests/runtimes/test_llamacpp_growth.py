"""Memory is taken as the requests need it, up to the context."""

import random
from pathlib import Path

import numpy as np
import pytest
from speaking import Bench, generate, llamacpp

from gguf_factory import write_tiny_gguf
from pilotlight.core import FinishReason
from pilotlight.runtimes.limits import HEADROOM
from pilotlight.runtimes.llamacpp.layout import UNIT, Layout, choose
from pilotlight.runtimes.llamacpp.native import Llama
from pilotlight.runtimes.llamacpp.state import SequenceState
from pilotlight.worker.protocol import Generate, Refused

CONTEXT = 32 * UNIT


@pytest.fixture(params=["plain", "no-extra-buffers"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    """Four sequences at a time; short ones with flash attention, or none."""
    return llamacpp(write_tiny_gguf(tmp_path / "long.gguf", context=CONTEXT), request.param, context=CONTEXT)


def tokens(count: int, seed: int = 0) -> list[int]:
    """A prompt of so many tokens."""
    draw = random.Random(seed)
    return [draw.randrange(20, 200) for _ in range(count)]


def layout(bench: Bench) -> Layout:
    """Of its memory now."""
    found: Layout = bench.runtime._decoder._layout
    return found


def own(num_rows: int, num_cells: int) -> Layout:
    """Cells of its own for each row."""
    return Layout(num_rows, num_cells, is_shared=False)


def refuse_to_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has memory for the first layout and for no other."""
    resize = Llama.resize

    def refusing(llama: Llama, wanted: Layout) -> bool:
        return wanted == own(4, UNIT) and resize(llama, wanted)

    monkeypatch.setattr(Llama, "resize", refusing)


def test_a_fresh_model_takes_little(bench: Bench) -> None:
    """And still says how long a request may be."""
    assert layout(bench) == own(4, UNIT)
    assert bench.info.context == CONTEXT


def test_a_long_prompt_gets_the_memory_it_needs(bench: Bench) -> None:
    """Alone, for itself only."""
    speech = bench.answer(generate(tokens(5 * UNIT), max_tokens=5))
    assert speech.end.completion_tokens == 5
    assert layout(bench) == own(1, 8 * UNIT)


def test_two_prompts_get_memory_for_all_who_may_come(bench: Bench) -> None:
    """As much as the longer one needs."""
    asked = [generate(tokens(length), max_tokens=5) for length in (5 * UNIT, 50)]
    assert [speech.end.completion_tokens for speech in bench.answers(asked)] == [5, 5]
    assert layout(bench) == own(4, 8 * UNIT)


def test_the_longest_prompt_has_it_alone(bench: Bench) -> None:
    """Nobody else has room beside it."""
    speech = bench.answer(generate(tokens(CONTEXT - 10), max_tokens=5))
    assert speech.end.completion_tokens == 5
    assert layout(bench) == own(1, CONTEXT)


def test_a_long_and_short_ones_share_what_there_is(bench: Bench) -> None:
    """As each its own would be too much; they say what they would have said alone."""
    asked = [tokens(20 * UNIT), tokens(50, seed=1), tokens(60, seed=2)]
    alone = [bench.answer(generate(one, max_tokens=20, cache_prompt=False)).text for one in asked]
    speeches = [generate(one, max_tokens=20, cache_prompt=False) for one in asked]
    assert [speech.text for speech in bench.answers(speeches)] == alone
    assert layout(bench) == Layout(4, CONTEXT, is_shared=True)
    short = [generate(tokens(50, seed), max_tokens=5) for seed in range(2)]
    bench.answers(short)
    assert not layout(bench).is_shared, "when they are gone, each has its own again"


def speak(bench: Bench, asked: Generate) -> None:
    """Until its answer has begun."""
    bench.start(asked)
    while not bench.speech(asked).pieces:
        bench.step()


@pytest.mark.parametrize(("units", "is_kept"), [(10, True), (15, False)])
def test_what_is_parked_makes_way_for_what_is_carried(bench: Bench, units: int, is_kept: bool) -> None:
    """As memory for all of the context is made for a long and a short one, what there is besides would be
    more than the context."""
    bench.answer(generate(tokens(units * UNIT, seed=1), max_tokens=5))
    speak(bench, generate(tokens(20 * UNIT), max_tokens=60, ignore_eos=True))
    parking = bench.runtime._memory._parking
    assert parking.num_tokens == units * UNIT + 4
    speak(bench, generate(tokens(50, seed=2), max_tokens=5))
    assert layout(bench) == Layout(4, CONTEXT, is_shared=True)
    assert bool(parking) == is_kept
    bench.finish()


def test_who_moves_in_shared_cells_is_not_copied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no memory for that. What it says is what it would have said alone."""
    short, long = (
        generate(tokens(length), max_tokens=count, cache_prompt=False, ignore_eos=True)
        for length, count in ((50, 40), (20 * UNIT, 80))
    )
    alone = bench.answer(long).text
    bench.speeches.clear()
    bench.start(short)
    bench.start(long)
    while not bench.speech(long).pieces:
        bench.step()
    assert not bench.speech(short).done
    monkeypatch.delattr(Llama, "save")
    bench.finish()
    assert bench.speech(long).text == alone


@pytest.mark.parametrize("bench", ["plain"], indirect=True)
def test_what_runs_goes_on_when_memory_grows(bench: Bench) -> None:
    """With the text it would have had alone, to the letter where the same kernels go on."""
    alone = bench.answer(generate(tokens(100), max_tokens=40)).text
    bench.forget()
    asked = generate(tokens(100), max_tokens=40)
    bench.start(asked)
    for _ in range(5):
        bench.step()
    bench.answer(generate(tokens(9 * UNIT, seed=1), max_tokens=5))
    assert layout(bench) == own(2, CONTEXT // 2)
    assert bench.speech(asked).text == alone


def test_an_answer_may_outgrow_the_memory(bench: Bench) -> None:
    """It grows in the middle of a sentence."""
    speech = bench.answer(generate(tokens(UNIT - 100), max_tokens=300, ignore_eos=True))
    assert speech.end.completion_tokens == 300
    assert layout(bench) == own(1, 2 * UNIT)


@pytest.mark.parametrize("mode", ["full", "plain"])
def test_memory_that_is_shared_at_first_says_nothing_of_flash_attention(tmp_path: Path, mode: str) -> None:
    """It is made without; short memory of their own, which two get, is not, unless the mode says so."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf", context=4 * UNIT)
    bench = llamacpp(path, mode, context=4 * UNIT, parallel=8)
    assert layout(bench) == Layout(8, UNIT, is_shared=True)
    bench.answers(generate(tokens(50, seed), max_tokens=5) for seed in range(2))
    assert layout(bench) == own(2, UNIT)
    state = bench.runtime._decoder.save(0, bench.runtime.state().cells_used)
    assert state.is_transposed == (mode == "plain")


def several(num_prompts: int) -> list[Generate]:
    """Short prompts, with short answers."""
    changes = {"max_tokens": 20, "cache_prompt": False, "ignore_eos": True}
    return [generate(tokens(50, seed), **changes) for seed in range(num_prompts)]


def leave_long_memory(bench: Bench) -> None:
    """For four long sequences, of which one rests."""
    bench.answers([generate(tokens(length), max_tokens=5) for length in (5 * UNIT, 50)])


def test_a_crowd_of_short_ones_gets_small_memory_again(bench: Bench) -> None:
    """Where that is faster: with flash attention."""
    leave_long_memory(bench)
    bench.answers(several(3))
    assert layout(bench) == own(4, 8 * UNIT), "not for a few"
    speeches = bench.answers(several(4))
    assert [speech.end.completion_tokens for speech in speeches] == [20] * 4
    assert layout(bench) == own(4, UNIT if bench.info.mode == "no-extra-buffers" else 8 * UNIT)


@pytest.mark.parametrize("bench", ["no-extra-buffers"], indirect=True)
def test_what_runs_goes_on_when_memory_shrinks(bench: Bench) -> None:
    """Three are in the middle of a sentence, and hold what they held, to the last bit."""
    leave_long_memory(bench)
    asked = several(3)
    for one in asked:
        bench.start(one)
    for _ in range(10):
        bench.step()
    decoder, running = bench.runtime._decoder, bench.runtime._memory.running
    held = [sequence.num_computed for sequence in running]
    before = [decoder.save(row, num_tokens) for row, num_tokens in enumerate(held)]
    assert decoder.reserve([*(len(sequence.tokens) for sequence in running), 100])
    assert layout(bench) == own(4, UNIT)
    after = [decoder.save(row, num_tokens) for row, num_tokens in enumerate(held)]
    assert len(after) == 3
    assert all(np.array_equal(a.turned().packed(), b.packed()) for a, b in zip(before, after, strict=True))
    bench.finish()
    assert [bench.speech(one).end.completion_tokens for one in asked] == [20] * 3


def test_memory_that_cannot_be_made_smaller_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs does not hear of it."""
    leave_long_memory(bench)
    alone = [bench.answer(one).text for one in several(4)]
    resize = Llama.resize
    monkeypatch.setattr(
        Llama, "resize", lambda llama, wanted: wanted != own(4, UNIT) and resize(llama, wanted)
    )
    assert [speech.text for speech in bench.answers(several(4))] == alone
    assert layout(bench) == own(4, 8 * UNIT)


@pytest.mark.parametrize("cache_prompt", [False, True])
def test_what_is_trimmed_gives_memory_back(bench: Bench, cache_prompt: bool) -> None:
    """That of the longest conversation so far."""
    bench.answer(generate(tokens(5 * UNIT), max_tokens=5, cache_prompt=cache_prompt))
    bench.runtime.trim()
    assert layout(bench) == own(1, UNIT)
    assert bench.answer(generate(tokens(50), max_tokens=5)).end.completion_tokens == 5


@pytest.mark.parametrize("length", [30, 2 * UNIT, 6 * UNIT])
def test_a_crowd_gives_memory_back_when_it_rests(bench: Bench, length: int) -> None:
    """What ended last stays, to the last bit, in a row for one."""
    bench.answers([generate(tokens(length, seed), max_tokens=5) for seed in range(2)])
    decoder, num_tokens = bench.runtime._decoder, bench.runtime.state().cells_used
    before = decoder.save(0, num_tokens)
    assert layout(bench).num_rows == 4
    assert bench.runtime.has_spare
    bench.runtime.rest()
    assert not bench.runtime.has_spare
    assert bench.runtime.state().fault is None
    assert layout(bench) == choose([num_tokens + HEADROOM], 4, CONTEXT, is_divisible=True)
    after = decoder.save(0, num_tokens)
    same = before.turned() if before.is_transposed != after.is_transposed else before
    assert np.array_equal(same.packed(), after.packed())
    for seed in range(2):
        assert bench.answer(generate(tokens(length, seed), max_tokens=5)).end.cached_tokens == length - 1


def test_shared_memory_is_given_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model whose states can only be restored in whole."""
    monkeypatch.setattr(SequenceState, "is_plain", lambda *_, **__: False)
    bench = llamacpp(write_tiny_gguf(tmp_path / "long.gguf", context=CONTEXT), context=CONTEXT)
    bench.answers([generate(tokens(2 * UNIT, seed), max_tokens=5) for seed in range(3)])
    assert layout(bench) == Layout(4, 8 * UNIT, is_shared=True)
    held = bench.runtime.state().cells_used
    bench.runtime.rest()
    assert layout(bench) == Layout(4, 4 * UNIT, is_shared=True)
    state = bench.runtime.state()
    assert (state.fault, state.cells_used) == (None, held)
    rests = next(bench.runtime._memory.kept()).tokens
    assert bench.answer(generate([*rests, *tokens(20)], max_tokens=5)).end.cached_tokens == held


def test_nobody_rests_while_something_runs(bench: Bench) -> None:
    """Its memory is in use."""
    bench.start(asked := generate(tokens(50), max_tokens=5))
    assert not bench.runtime.has_spare
    bench.finish()
    assert bench.runtime.has_spare
    assert bench.speech(asked).end.completion_tokens == 5


def test_memory_that_cannot_be_given_back_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What rests in it does, too."""
    bench.answers(several(4))
    bench.answer(generate(tokens(60), max_tokens=5))
    before, resize = layout(bench), Llama.resize
    assert before.num_rows == 4
    monkeypatch.setattr(Llama, "resize", lambda llama, wanted: wanted == before and resize(llama, wanted))
    bench.runtime.rest()
    assert layout(bench) == before
    assert not bench.runtime.has_spare, "asking again would not help"
    assert bench.answer(generate(tokens(60), max_tokens=5)).end.cached_tokens == 59


@pytest.mark.parametrize("bench", ["no-extra-buffers"], indirect=True)
@pytest.mark.parametrize("seed", range(3))
def test_memory_that_grows_and_shrinks_stays_in_order(bench: Bench, seed: int) -> None:
    """Whoever comes and goes, in crowds or alone."""
    draw, seen = random.Random(seed), set()
    asked: list[Generate] = []
    for _ in range(12):
        most = draw.choice([60, 600])
        for _ in range(draw.choice([1, 4, 5])):
            prompt = tokens(draw.randint(5, most), draw.randrange(3))
            asked.append(generate(prompt, max_tokens=draw.randint(1, 20), ignore_eos=True))
            bench.start(asked[-1])
        for _ in range(draw.choice([5, 60])):
            seen.add(layout(bench))
            if bench.runtime.has_spare and draw.random() < 0.5:
                bench.runtime.rest()
            if bench.runtime.has_work:
                bench.step()
            assert bench.runtime.state().fault is None
    bench.finish()
    assert all(bench.speech(one).end.completion_tokens == one.max_tokens for one in asked)
    assert {found.num_rows for found in seen} == {1, 4}
    assert len({found.num_cells for found in seen}) > 1


def test_a_conversation_survives_the_growth(bench: Bench) -> None:
    """Parked meanwhile, it fits a memory of any layout."""
    fresh = bench.answer(generate(tokens(300), max_tokens=5)).text
    for length in (9 * UNIT, 20 * UNIT):
        bench.answer(generate(tokens(length, seed=1), max_tokens=5))
        again = bench.answer(generate(tokens(300), max_tokens=5))
        assert again.end.cached_tokens == 299
        assert again.text == fresh


def test_who_finds_no_memory_hears_of_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker goes on with what it has."""
    resize = Llama.resize
    monkeypatch.setattr(
        Llama, "resize", lambda llama, wanted: wanted == own(4, UNIT) and resize(llama, wanted)
    )
    asked = generate(tokens(5 * UNIT), n=2)
    bench.start(asked)
    (refused,) = bench.runtime.step()
    assert isinstance(refused, Refused)
    assert (refused.id, refused.code) == (asked.id, "NoMemory")
    assert "no memory for the 1280 tokens" in refused.message
    assert not bench.runtime.has_work
    assert bench.answer(generate(tokens(50), max_tokens=5)).end.completion_tokens == 5


def test_who_runs_into_the_end_of_memory_stops_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was said until then."""
    resize = Llama.resize
    monkeypatch.setattr(
        Llama, "resize", lambda llama, wanted: wanted == own(4, UNIT) and resize(llama, wanted)
    )
    speech = bench.answer(generate(tokens(UNIT - 100), max_tokens=300, ignore_eos=True))
    assert (speech.end.reason, speech.end.completion_tokens) == (FinishReason.LENGTH, 101)


def test_who_finds_no_memory_beside_others_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are rows for those, and for nobody else."""
    asked = [generate(tokens(9 * UNIT, seed), max_tokens=60, ignore_eos=True) for seed in range(2)]
    for one in asked:
        bench.start(one)
    while not all(bench.speech(one).pieces for one in asked):
        bench.step()
    two_rows = layout(bench)
    assert two_rows == own(2, 16 * UNIT)
    resize = Llama.resize
    monkeypatch.setattr(Llama, "resize", lambda llama, wanted: wanted == two_rows and resize(llama, wanted))
    asked.append(generate(tokens(50), max_tokens=60, ignore_eos=True))
    bench.start(asked[-1])
    bench.finish()
    assert [bench.speech(one).end.completion_tokens for one in asked] == [60, 60, 60]
