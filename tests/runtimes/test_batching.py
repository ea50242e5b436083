"""What goes into the next decode step."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtimes.batching import (
    FEW_ROWS,
    ROWS,
    SMALLEST_CHUNK,
    TILE,
    WORTH_PADDING,
    Pace,
    Sequence,
    num_padding,
    plan,
    shares_prefix,
)

few_tokens = st.lists(st.integers(0, 2), max_size=40)


def waiting(length: int, arrival: int = 0) -> Sequence:
    """A prompt in a slot, nothing of it computed."""
    sequence = Sequence([1] * length, arrival)
    sequence.slot = 0
    return sequence


def generating(arrival: int = 0) -> Sequence:
    """A sequence with one sampled token to compute."""
    sequence = waiting(5, arrival)
    sequence.num_computed = 5
    sequence.tokens.append(2)
    return sequence


def counts(batch: Iterable[tuple[Sequence, int]], *sequences: Sequence) -> list[int]:
    """Tokens planned for each of these."""
    planned = {id(sequence): count for sequence, count in batch}
    return [planned.get(id(sequence), 0) for sequence in sequences]


def test_the_shortest_prompt_goes_first() -> None:
    """And what is left of the chunk goes to the next."""
    long, short = waiting(100), waiting(20)
    assert counts(plan([long, short], 0, chunk=30, largest=64), long, short) == [10, 20]


def test_a_prompt_that_is_half_done_counts_what_is_left_of_it() -> None:
    """It is done sooner than a shorter one that just came."""
    half, short = waiting(100), waiting(20)
    half.num_computed = 90
    assert counts(plan([half, short], 0, chunk=10, largest=64), half, short) == [10, 0]


def test_a_prompt_that_waited_its_own_length_goes_before_shorter_ones() -> None:
    """In order of arrival."""
    old, new = waiting(100, arrival=0), waiting(20, arrival=60)
    assert counts(plan([new, old], 99, chunk=16, largest=64), old, new) == [0, 16]
    assert counts(plan([new, old], 100, chunk=16, largest=64), old, new) == [16, 0]


def test_a_sequence_without_a_slot_is_left_out() -> None:
    """It waits for room."""
    sequence = waiting(5)
    sequence.slot = None
    assert plan([sequence], 0, chunk=16, largest=64) == []


def test_a_sequence_that_starts_over_is_a_prompt_again() -> None:
    """Its answer so far is computed with its prompt."""
    sequence = generating()
    sequence.num_computed = 0
    assert counts(plan([sequence], 0, chunk=16, largest=64), sequence) == [6]


@given(
    prompts=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 100)), max_size=8),
    streams=st.integers(0, 8),
    chunk=st.integers(1, 64),
    work_done=st.integers(0, 500),
)
def test_a_step_is_bounded_and_holds_every_stream(
    prompts: list[tuple[int, int]], streams: int, chunk: int, work_done: int
) -> None:
    """One token per stream, at most a chunk of prompts, never more than the largest, and never nothing."""
    running = [generating() for _ in range(streams)]
    batch = plan([*(waiting(*prompt) for prompt in prompts), *running], work_done, chunk, largest=40)
    assert counts(batch, *running) == [1] * streams
    num_prompt_tokens = sum(count for _, count in batch) - streams
    assert num_prompt_tokens == min(chunk, 40 - streams, sum(length for length, _ in prompts))
    assert all(0 < count <= sequence.num_pending for sequence, count in batch)


@given(
    length=st.integers(1, 200),
    others=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 200)), max_size=30),
    chunk=st.integers(1, 64),
)
def test_a_prompt_is_passed_by_at_most_its_own_length(
    length: int, others: list[tuple[int, int]], chunk: int
) -> None:
    """Of tokens that came later, in bursts or not, and the rest of one step."""
    ours = waiting(length)
    sequences, work_done, passed, step = [ours], 0, 0, 0
    while ours.num_pending:
        sequences += [waiting(size, work_done) for at, size in others if at == step]
        batch = plan(sequences, work_done, chunk, largest=64)
        planned = [sequence for sequence, _ in batch]
        first = planned.index(ours) if ours in planned else len(batch)
        passed += sum(count for _, count in batch[:first])
        for sequence, count in batch:
            sequence.num_computed += count
            work_done += count
        sequences = [sequence for sequence in sequences if sequence.num_pending]
        step += 1
    assert passed <= length + chunk


@given(few_tokens, few_tokens, few_tokens)
def test_shared_prefixes_are_measured_right(common: list[int], a: list[int], b: list[int]) -> None:
    """As counting them one by one does."""
    a, b = common + a, common + b
    naive = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert shares_prefix(a, b) == naive


def test_the_pace_is_careful_before_it_knows_the_machine() -> None:
    """A first step of half a minute would be a bad surprise."""
    assert Pace(0.5, 0.25, largest=512).chunk(0, 1) == TILE


def test_a_step_takes_the_time_it_may_take() -> None:
    """Less while streams wait for it."""
    pace = Pace(step_s=0.5, busy_step_s=0.25, largest=512)
    pace.observe(100, 0.25)
    quiet, busy = pace.chunk(0, 1), pace.chunk(1, 1)
    assert 200 - TILE < quiet <= 200
    assert 100 - TILE < busy <= 100


def test_the_more_prompts_wait_the_longer_is_a_step_beside_streams() -> None:
    """Nothing waits for a step of prompts alone, so that one stays as it is."""
    pace = Pace(step_s=0.5, busy_step_s=0.25, largest=512)
    pace.observe(100, 0.25)
    assert pace.chunk(4, 1) == pace.chunk(4, 2) < pace.chunk(4, 4) < pace.chunk(4, 8)
    assert pace.chunk(0, 1) == pace.chunk(0, 8)


def test_a_step_too_small_to_tell_is_not_measured() -> None:
    """Its cost is that of the weights and not of its tokens."""
    pace = Pace(0.5, 0.25, largest=512)
    pace.observe(100, 0.25)
    before = pace.chunk(0, 1)
    pace.observe(SMALLEST_CHUNK - 1, 100.0)
    assert pace.chunk(0, 1) == before


def test_one_slow_step_does_not_set_the_pace() -> None:
    """But many do."""
    pace = Pace(0.5, 0.25, largest=512)
    for _ in range(20):
        pace.observe(100, 0.25)
    pace.observe(100, 0.5)
    assert 100 < pace.chunk(0, 1) < 200
    for _ in range(20):
        pace.observe(100, 0.5)
    assert 101 - TILE <= pace.chunk(0, 1) <= 101 + TILE // 4


@given(
    st.lists(st.tuples(st.integers(1, 512), st.floats(1e-6, 100)), max_size=20),
    st.integers(0, 64),
    st.integers(0, 99),
)
def test_a_chunk_is_never_out_of_bounds(
    steps: list[tuple[int, float]], num_running: int, num_prompts: int
) -> None:
    """Whatever was measured; with the tokens of running streams it makes whole rows."""
    pace = Pace(0.5, 0.25, largest=504)
    for num_tokens, seconds in steps:
        pace.observe(num_tokens, seconds)
    chunk = pace.chunk(num_running, num_prompts)
    assert 0 < chunk <= 504
    assert (chunk + num_running) % ROWS == 0


@pytest.mark.parametrize(("rows", "padding"), [(1, 0), (6, 0), (7, 1), (8, 0), (12, 0), (13, 3), (31, 1)])
def test_padding_is_worth_its_rows(rows: int, padding: int) -> None:
    """A whole group of the fastest kernels, or the last row of a small one."""
    assert num_padding(rows) == padding


@given(st.integers(1, 512))
def test_padding_fills_the_last_rows(num_tokens: int) -> None:
    """Or adds nothing; the largest batch does not grow."""
    padded = num_tokens + num_padding(num_tokens)
    assert padded == num_tokens or padded % FEW_ROWS == 0
    assert padded - num_tokens <= WORTH_PADDING
    assert padded <= 512
