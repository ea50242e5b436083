"""Rows side by side, in every runtime that computes them so."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from speaking import GREEDY, Bench, builtin, generate

from mlx_factory import write_random
from pilotlight.core import Sampling
from pilotlight.runtimes.batching import JUST_BEGUN, NUM_COSTS
from pilotlight.runtimes.rows import Decoder
from pilotlight.worker.protocol import Done, Event, FirstDelta, Threads

LONG = [5, 6, 7, 8] * 60


@pytest.fixture(scope="session", params=["llamacpp", "onnx", "mlx"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Once per runtime; of random weights with MLX, which takes its time on a CPU."""
    if request.param != "mlx":
        return builtin(request.param)
    small = {"num_hidden_layers": 2, "max_position_embeddings": 2048}
    return Bench("mlx", write_random(tmp_path_factory.mktemp("mlx"), **small))


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """As if freshly loaded."""
    loaded.forget()
    return loaded


@pytest.fixture
def decoder(bench: Bench) -> Iterator[Decoder]:
    """Of the same model, by itself, with room for three prompts."""
    found: Decoder = bench.runtime._decoder
    assert found.reserve([len(LONG) + 1] * 3)
    yield found
    for row in (2, 1, 0):
        found.clear(row)


class Watch:
    """A decoder, and what is asked of it."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.runs: list[tuple[int, int]] = []
        """How many rows and how many tokens of each, run by run."""

    def read(self, row: int, tokens: Sequence[int], *rest: Any) -> bool:
        self.runs.append((1, len(tokens)))
        return self._decoder.read(row, tokens, *rest)

    def compute(self, first: int, tokens: Sequence[Sequence[int]], *rest: Any) -> Any:
        self.runs.append((len(tokens), len(tokens[0])))
        return self._decoder.compute(first, tokens, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


@pytest.fixture
def runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is computed from here on."""
    watch = Watch(bench.runtime._decoder)
    monkeypatch.setattr(bench.runtime, "_decoder", watch)
    return watch.runs


def close(one: Any, other: Any) -> bool:
    """The same logits, up to a small part of their spread."""
    return bool(np.abs(one - other).max() < 0.15 * one.std())


@pytest.mark.parametrize("name", ["onnx", "mlx"])
def test_the_context_is_no_longer_than_the_trained_one(name: str) -> None:
    """Beyond it there are no positions to look up; /v1/models tells the real one."""
    assert builtin(name, context=100_000).info.context == 2048


# --- the step ---


def test_sequences_that_generate_are_computed_together(bench: Bench, runs: list[tuple[int, int]]) -> None:
    """In one run for all of them, step by step."""
    for token in range(5, 9):
        bench.start(generate([token] * 9, max_tokens=30, ignore_eos=True))
    while not all(bench.runtime._sequences[index].is_generating for index in range(4)):
        bench.step()
    runs.clear()
    bench.step()
    assert runs == [(4, 1)]
    bench.finish()


def test_the_first_of_a_crowd_waits_for_the_others(bench: Bench, runs: list[tuple[int, int]]) -> None:
    """A step for one costs nearly as much as one for all."""
    for _ in range(NUM_COSTS):
        bench.runtime._pace.observe(100, 1.0)
    for token in range(5, 9):
        bench.start(generate([token] * 40, max_tokens=5, ignore_eos=True))
    bench.finish()
    assert runs == [(1, 40)] * 4 + [(4, 1)] * 4


def test_who_has_said_nothing_yet_does_not_wait_for_others(bench: Bench, runs: list[tuple[int, int]]) -> None:
    """An answer may begin with a mark, or with half a character: its client knows of no token so far."""
    piece = bench.runtime._vocabulary.piece
    half = next(token for token in range(bench.runtime._vocabulary.num_vocab) if piece(token) == b"\xc3")
    for _ in range(NUM_COSTS):
        bench.runtime._pace.observe(100, 1.0)
    silent = Sampling(temperature=0.0, logit_bias=((half, 100.0),))
    for token, sampling in ((5, silent), (6, GREEDY), (7, GREEDY)):
        bench.start(generate([token] * 40, sampling, max_tokens=3, ignore_eos=True))
    bench.finish()
    assert runs[:3] == [(1, 40), (1, 1), (1, 40)]


def test_an_answer_that_ends_with_its_first_token_keeps_no_prompt_waiting(
    bench: Bench, runs: list[tuple[int, int]]
) -> None:
    """It has said nothing, and has nothing more to say."""
    end = next(iter(bench.runtime._vocabulary.end_tokens))
    for _ in range(NUM_COSTS):
        bench.runtime._pace.observe(100, 1.0)
    silent = Sampling(temperature=0.0, logit_bias=((end, 100.0),))
    for token, sampling in ((5, GREEDY), (6, silent), (7, GREEDY)):
        bench.start(generate([token] * 40, sampling, max_tokens=3, ignore_eos=sampling is GREEDY))
    bench.finish()
    assert runs[:3] == [(1, 40)] * 3


def test_a_prompt_is_computed_between_the_tokens_of_others(bench: Bench, runs: list[tuple[int, int]]) -> None:
    """Nobody waits for all of it."""
    for _ in range(NUM_COSTS):
        bench.runtime._pace.observe(100, 1.0)
    talking, reading = generate("hi", max_tokens=40, ignore_eos=True), generate(LONG, max_tokens=1)
    bench.start(talking)
    for _ in range(JUST_BEGUN + 1):
        bench.step()
    bench.start(reading)
    runs.clear()
    while not bench.speech(reading).done:
        bench.step()
    pieces = [0]
    for _, num_tokens in runs:
        pieces = [*pieces, 0] if num_tokens == 1 else [*pieces[:-1], pieces[-1] + num_tokens]
    assert len(pieces) > 2
    assert max(pieces) <= 112
    bench.finish()
    assert bench.speech(talking).end.completion_tokens == 40


def test_nobody_is_moved_when_all_end_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that was computed would be copied for nothing."""
    moved: list[int] = []
    monkeypatch.setattr(bench.runtime._decoder, "move", lambda source, *_: moved.append(source))
    asked = [generate([token] * 20, n=2, max_tokens=5, ignore_eos=True) for token in (5, 6)]
    bench.answers(asked)
    assert moved == []


def test_who_stays_is_moved_when_others_leave(bench: Bench) -> None:
    """Rows stay without gaps, and each goes on where it was."""
    alone = bench.answer(generate([9] * 20, max_tokens=30, cache_prompt=False)).text
    gone = [generate([token] * 20, max_tokens=200, ignore_eos=True) for token in (5, 6)]
    stays = generate([9] * 20, max_tokens=30)
    for one in [*gone, stays]:
        bench.start(one)
    while not bench.speech(stays).pieces:
        bench.step()
    for one in gone:
        bench.runtime.cancel(one.id)
    assert [sequence.row for sequence in bench.runtime._sequences] == [0]
    bench.finish()
    assert bench.speech(stays).text[:20] == alone[:20]


def test_what_ended_is_put_away_once_that_is_told(bench: Bench) -> None:
    """Until then it has its row."""
    ends, stays = (
        generate([token] * 20, max_tokens=count, ignore_eos=True) for token, count in ((5, 2), (9, 9))
    )
    bench.start(ends)
    bench.start(stays)
    told: list[Event] = []
    while not any(isinstance(event, Done) for event in told):
        bench.runtime.settle()
        told = bench.runtime.step()
    assert (bench.runtime.state().active, bench.runtime.state().cached) == (2, 0)
    bench.runtime.settle()
    assert (bench.runtime.state().active, bench.runtime.state().cached) == (1, 1)
    bench.finish()


def test_the_first_words_say_what_was_cached(bench: Bench) -> None:
    """Nobody may hear the last ones. Whoever shares its prompt says so, too."""
    bench.answer(generate(LONG, max_tokens=1))
    asked = generate([*LONG, 9], n=2, max_tokens=4, ignore_eos=True)
    bench.start(asked)
    bench.finish()
    for index in range(2):
        first, *rest = bench.speech(asked, index).pieces
        assert isinstance(first, FirstDelta)
        assert first.cached_tokens == bench.speech(asked, index).end.cached_tokens == len(LONG)
        assert not any(isinstance(piece, FirstDelta) for piece in rest)


def test_who_is_moved_in_a_step_takes_its_newest_token_along(bench: Bench) -> None:
    """It was computed in the same step in which another ended."""
    ends, stays = (
        generate([token] * 20, max_tokens=count, ignore_eos=True) for token, count in ((5, 4), (9, 40))
    )
    bench.start(ends)
    bench.start(stays)
    while not bench.speech(ends).done:
        bench.step()
    (sequence,) = bench.runtime._sequences
    fresh = [9] * 20 + sequence.tokens[20:]
    count = sequence.num_computed
    decoder = bench.runtime._decoder
    assert decoder.reserve([len(fresh)] * 2)
    moved = decoder.compute(0, [fresh[count : count + 1]], [count])[0].copy()
    decoder.cut(0, count)
    expected = decoder.compute(1, [fresh[: count + 1]], [0])[0]
    assert close(moved, expected)
    decoder.clear(1)
    bench.finish()


def test_a_long_conversation_that_is_edited_costs_no_other_its_place(bench: Bench) -> None:
    """Nothing is parked of it that its row keeps: that would take all the room there is for others."""
    other, long = [9] * 100, [5, 6, 7, 8] * 175
    for prompt in (other, long, [*long[:650], *other[:20]]):
        bench.answer(generate(prompt, max_tokens=1))
    assert bench.answer(generate([*other, 3], max_tokens=1)).end.cached_tokens >= len(other)


def test_nothing_is_looked_for_while_there_is_no_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits is asked about at every step, and all that is known is long."""
    running = [generate([token] * 300, max_tokens=40, ignore_eos=True) for token in (6, 7, 8)]
    waiting = generate([9] * 300, max_tokens=1)
    for asked in (*running, waiting):
        bench.start(asked)
    while not all(bench.speech(asked).pieces for asked in running):
        bench.step()
    while not bench.runtime._is_full:
        bench.step()
    with monkeypatch.context() as blind:
        blind.setattr(bench.runtime._memory, "find", None)
        for _ in range(3):
            bench.step()
    bench.finish()
    assert bench.speech(waiting).end.completion_tokens == 1


@pytest.mark.parametrize("name", ["onnx", "mlx"])
def test_threads_stay_as_they_were_loaded(name: str) -> None:
    """And the state says so."""
    bench = builtin(name)
    assert bench.runtime.set_threads(7, 8) == Threads(1, 1)
    assert bench.runtime.enough_threads(lambda: False) == 0
    assert bench.runtime.state().threads == 1


# --- the decoder ---


def test_rows_of_any_length_do_not_disturb_each_other(decoder: Decoder) -> None:
    """Logits of a row among others are those of it alone."""
    prompts = [LONG[:100], LONG[:7], LONG[2:60]]
    alone = []
    for prompt in prompts:
        decoder.read(0, prompt, 0)
        alone.append(decoder.compute(0, [[9]], [len(prompt)])[0].copy())
        decoder.cut(0, 0)
    for row, prompt in enumerate(prompts):
        decoder.read(row, prompt, 0)
    together = decoder.compute(0, [[9], [9], [9]], [len(prompt) for prompt in prompts])
    assert all(map(close, alone, together))


def test_a_prompt_may_be_read_in_pieces(decoder: Decoder) -> None:
    """Of any length, the last of them one token."""
    whole = decoder.compute(0, [LONG], [0])[0].copy()
    decoder.cut(0, 0)
    decoder.read(0, LONG[:7], 0)
    decoder.read(0, LONG[7:-1], 7)
    assert close(whole, decoder.compute(0, [LONG[-1:]], [len(LONG) - 1])[0])


def test_a_row_can_be_copied_saved_and_restored(decoder: Decoder) -> None:
    """In whole or in part, to any row; what is saved stays when its row is used for others."""
    fresh = decoder.compute(0, [LONG], [0])[0].copy()
    decoder.copy(0, 2, 100)
    assert close(fresh, decoder.compute(2, [LONG[100:]], [100])[0])
    decoder.cut(2, 200)
    saved = decoder.save(2, 200)
    decoder.cut(2, 0)
    decoder.read(2, [3] * 240, 0)
    decoder.restore(1, saved, 150)
    assert close(fresh, decoder.compute(1, [LONG[150:]], [150])[0])
    decoder.cut(2, 0)
    decoder.restore(2, saved, 100)
    decoder.cut(1, 0)
    decoder.move(2, 1, 100)
    assert close(fresh, decoder.compute(1, [LONG[100:]], [100])[0])


def test_a_row_that_is_cleared_leaves_the_others(decoder: Decoder) -> None:
    """With what they hold."""
    kept = decoder.compute(0, [LONG], [0])[0].copy()
    decoder.read(1, LONG, 0)
    decoder.clear(1)
    decoder.cut(0, len(LONG) - 1)
    assert close(kept, decoder.compute(0, [LONG[-1:]], [len(LONG) - 1])[0])
