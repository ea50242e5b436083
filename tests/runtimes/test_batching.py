"""What is computed in the next step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtimes.batching import (
    CAREFUL_CHUNK,
    JUST_BEGUN,
    ROWS,
    SMALLEST_CHUNK,
    WHOLE,
    Pace,
    Sequence,
    piece,
    prompts,
    shares_prefix,
)

few_tokens = st.lists(st.integers(0, 2), max_size=40)


def waiting(length: int, arrival: int = 0) -> Sequence:
    """A prompt, nothing of it computed."""
    return Sequence([1] * length, arrival)


def generating(num_generated: int = 1) -> Sequence:
    """A sequence that has sampled so many tokens, the last of them to be computed."""
    sequence = waiting(5)
    sequence.tokens += [2] * num_generated
    sequence.num_computed = len(sequence.tokens) - 1
    sequence.has_said = True
    return sequence


def old(num_sequences: int = 1) -> list[Sequence]:
    """Streams that have run for a while."""
    return [generating(JUST_BEGUN + 1) for _ in range(num_sequences)]


def some(num_prompts: int) -> list[Sequence]:
    """Prompts that nothing is computed of."""
    return [waiting(100) for _ in range(num_prompts)]


def new_pace(largest: int = 512) -> Pace:
    """Prompts alone take half a second, beside streams half of that."""
    return Pace(0.5, 0.25, 0.8, largest)


def test_the_shortest_prompt_goes_first() -> None:
    """It is done first."""
    long, short = waiting(100), waiting(20)
    assert prompts([long, short], 0) == [short, long]


def test_a_prompt_that_is_half_done_counts_what_is_left_of_it() -> None:
    """It is done sooner than a shorter one that just came."""
    half, short = waiting(100), waiting(20)
    half.num_computed = 90
    assert prompts([short, half], 0) == [half, short]


def test_a_prompt_that_waited_its_own_length_goes_before_shorter_ones() -> None:
    """In order of arrival."""
    old, new = waiting(100, arrival=0), waiting(20, arrival=60)
    assert prompts([old, new], 99) == [new, old]
    assert prompts([new, old], 100) == [old, new]


def test_a_sequence_that_starts_over_is_a_prompt_again() -> None:
    """Its answer so far is computed with its prompt."""
    sequence = generating()
    assert prompts([sequence], 0) == []
    sequence.num_computed = 0
    assert prompts([sequence], 0) == [sequence]
    assert piece(sequence, 16, is_first=True) == 6


@given(length=st.integers(1, 600), room=st.integers(1, 300), is_first=st.booleans())
def test_a_piece_is_the_share_or_the_whole(length: int, room: int, is_first: bool) -> None:
    """No small rest is left for a step of its own; who comes after the first is not cut at all."""
    count = piece(waiting(length), room, is_first=is_first)
    if length <= WHOLE * room:
        assert count == length
    else:
        assert count == (room if is_first else 0)


@given(
    length=st.integers(1, 200),
    others=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 200)), max_size=30),
    chunk=st.integers(1, 64),
)
def test_a_prompt_is_passed_by_at_most_its_own_length(
    length: int, others: list[tuple[int, int]], chunk: int
) -> None:
    """Of tokens that came later, in bursts or not, and one more piece."""
    ours = waiting(length)
    sequences, work_done, passed, step = [ours], 0, 0, 0
    while ours.num_pending:
        sequences += [waiting(size, work_done) for at, size in others if at == step]
        room = chunk
        while room > 0 and (ready := prompts(sequences, work_done)):
            count = piece(ready[0], room, is_first=room == chunk)
            if not count:
                break
            ready[0].num_computed += count
            work_done += count
            room -= count
            passed += count if ready[0] is not ours and ours.num_pending else 0
            sequences = [sequence for sequence in sequences if sequence.num_pending]
        step += 1
    assert passed <= length + WHOLE * chunk


@given(few_tokens, few_tokens, few_tokens)
def test_shared_prefixes_are_measured_right(common: list[int], a: list[int], b: list[int]) -> None:
    """As counting them one by one does."""
    a, b = common + a, common + b
    naive = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert shares_prefix(a, b) == naive


def test_the_pace_is_careful_before_it_knows_the_machine() -> None:
    """A first step of half a minute would be a bad surprise."""
    assert new_pace().chunk([], some(1)) == CAREFUL_CHUNK


def test_the_pace_says_what_prompts_take() -> None:
    """Once it knows."""
    pace = new_pace()
    assert pace.seconds(1) == math.inf
    pace.observe(100, 0.25)
    assert pace.seconds(40) == pytest.approx(0.1)


def test_a_step_takes_the_time_it_may_take() -> None:
    """Less while streams wait for it."""
    pace = new_pace()
    pace.observe(100, 0.25)
    quiet, busy = pace.chunk([], some(1)), pace.chunk(old(), some(1))
    assert abs(quiet - 200) <= ROWS / 2
    assert abs(busy - 100) <= ROWS / 2


def test_the_more_prompts_wait_the_longer_is_a_step_beside_streams() -> None:
    """Nothing waits for a step of prompts alone, so that one stays as it is."""
    pace = new_pace()
    pace.observe(100, 0.25)
    one, two, four, eight = (pace.chunk(old(4), some(num_prompts)) for num_prompts in (1, 2, 4, 8))
    assert one == two < four < eight
    assert pace.chunk([], some(1)) == pace.chunk([], some(8))


def test_a_crowd_begins_together() -> None:
    """Streams that have just begun wait for the others' prompts, up to a bound; not beside older ones."""
    pace = new_pace()
    pace.observe(100, 0.25)
    just_begun = generating(JUST_BEGUN)
    assert pace.chunk(old(), some(1)) < pace.chunk([just_begun], some(1)) < pace.chunk([just_begun], some(2))
    assert abs(pace.chunk([just_begun], some(7)) - 320) <= ROWS / 2
    assert pace.chunk([just_begun, *old()], some(2)) == pace.chunk(old(2), some(2))
    just_begun.has_said = False
    assert pace.chunk([just_begun], some(2)) == pace.chunk(old(), some(2)), "its client has nothing yet"


def test_a_crowd_is_not_parted_for_the_last_prompts() -> None:
    """If half as much again as the bound allows is enough for all of them; else the bound holds."""
    pace = new_pace()
    pace.observe(100, 0.25)
    just_begun = [generating(1)]
    assert abs(pace.chunk(just_begun, some(4)) - 400) <= ROWS / 2
    assert abs(pace.chunk(just_begun, some(5)) - 320) <= ROWS / 2
    assert pace.chunk(just_begun, some(4), longest_s=0.8) == pace.chunk(just_begun, some(5))


def test_a_step_too_small_to_tell_is_not_measured() -> None:
    """Its cost is that of the weights and not of its tokens."""
    pace = new_pace()
    pace.observe(100, 0.25)
    before = pace.chunk([], some(1))
    pace.observe(SMALLEST_CHUNK - 1, 100.0)
    assert pace.chunk([], some(1)) == before


def test_steps_far_off_do_not_set_the_pace() -> None:
    """A process that stood still for a minute computes no slower afterwards."""
    pace = new_pace()
    for seconds in (0.25, 0.25, 0.25, 60.0, 0.0):
        pace.observe(100, seconds)
    assert abs(pace.chunk([], some(1)) - 200) <= ROWS / 2


def test_a_machine_that_became_slower_sets_the_pace() -> None:
    """After a few steps."""
    pace = new_pace()
    for seconds in (0.25, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5):
        pace.observe(100, seconds)
    assert abs(pace.chunk([], some(1)) - 100) <= ROWS / 2


@given(
    st.lists(st.tuples(st.integers(1, 512), st.floats(1e-6, 100)), max_size=20),
    st.lists(st.integers(1, 9), max_size=64),
    st.integers(0, 99),
)
def test_a_chunk_is_never_out_of_bounds(
    steps: list[tuple[int, float]], streams: list[int], num_prompts: int
) -> None:
    """Whatever was measured; it makes whole groups of rows."""
    pace = new_pace(504)
    for num_tokens, seconds in steps:
        pace.observe(num_tokens, seconds)
    chunk = pace.chunk([generating(num_tokens) for num_tokens in streams], some(num_prompts))
    assert 0 < chunk <= 504
    assert chunk % ROWS == 0 or chunk == 504
