"""How llama.cpp's memory is divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtimes.llamacpp.layout import SHORT, SHORT_ALONE, UNIT, Layout, choose

all_lengths = st.lists(st.integers(1, 9000), max_size=8)
contexts = st.integers(1, 40_000)


@given(all_lengths, contexts, st.booleans())
def test_a_layout_holds_what_it_was_chosen_for(lengths: list[int], context: int, is_divisible: bool) -> None:
    """In no more cells than the context has, but for the least there are; None only if they don't fit it."""
    layout = choose(lengths, 8, context, is_divisible=is_divisible)
    if layout is None:
        assert sum(lengths) > context
    else:
        assert layout.holds(lengths)
        assert UNIT <= layout.num_cells_in_all <= max(context, UNIT)
        assert is_divisible or layout.is_shared


@given(all_lengths, contexts)
def test_cells_are_shared_only_where_they_must_be(lengths: list[int], context: int) -> None:
    """Nobody's attention looks at others' without need."""
    layout = choose(lengths, 8, context, is_divisible=True)
    if max(lengths, default=1) <= context // max(1, len(lengths)) // UNIT * UNIT:
        assert layout is not None
        assert not layout.is_shared


def test_room_for_everybody_who_may_come_is_best() -> None:
    """Then for those who are there, then cells for all together."""
    assert choose([300, 20], 8, 8192, is_divisible=True) == Layout(8, 512, is_shared=False)
    assert choose([3000, 20], 8, 8192, is_divisible=True) == Layout(2, 4096, is_shared=False)
    assert choose([5000, 20], 8, 8192, is_divisible=True) == Layout(8, 8192, is_shared=True)
    assert choose([8000, 300], 8, 8192, is_divisible=True) is None


def test_nobody_gets_no_cells() -> None:
    """llama.cpp takes none for as many as the model was trained for."""
    assert choose([], 8, UNIT - 1, is_divisible=True) == Layout(8, UNIT, is_shared=True)
    assert choose([], 8, UNIT, is_divisible=True) == Layout(1, UNIT, is_shared=False)


def test_who_is_alone_has_one_row() -> None:
    """As long as the context allows, and no longer than needed."""
    assert choose([], 8, 8192, is_divisible=True) == Layout(1, 256, is_shared=False)
    assert choose([300], 8, 8192, is_divisible=True) == Layout(1, 512, is_shared=False)
    assert choose([8000], 8, 8192, is_divisible=True) == Layout(1, 8192, is_shared=False)


@pytest.mark.parametrize(
    ("layout", "suits_flash"),
    [
        (Layout(8, SHORT, is_shared=False), True),
        (Layout(2, SHORT, is_shared=False), True),
        (Layout(1, SHORT_ALONE, is_shared=False), True),
        (Layout(1, SHORT, is_shared=False), False),
        (Layout(8, SHORT + UNIT, is_shared=False), False),
        (Layout(8, SHORT, is_shared=True), False),
    ],
)
def test_flash_attention_is_for_short_memory(layout: Layout, suits_flash: bool) -> None:
    """Which is longer for several, each with cells of its own."""
    assert layout.suits_flash is suits_flash


def test_a_layout_holds_so_many_rows_of_such_lengths() -> None:
    """Each its own, or all together."""
    assert Layout(2, 512, is_shared=False).holds([512, 512])
    assert not Layout(2, 512, is_shared=False).holds([513])
    assert not Layout(2, 512, is_shared=False).holds([1, 1, 1])
    assert Layout(2, 512, is_shared=True).holds([500, 12])
    assert not Layout(2, 512, is_shared=True).holds([500, 13])
