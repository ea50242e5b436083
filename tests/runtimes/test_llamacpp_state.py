"""What a sequence's state is worth in a context of another layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gguf_factory import write_tiny_gguf
from pilotlight.runtimes.kv_types import KvTypes
from pilotlight.runtimes.llamacpp.layout import SHORT, Layout
from pilotlight.runtimes.llamacpp.native import MODES, Llama
from pilotlight.runtimes.rows import Floats
from pilotlight.worker.protocol import Load

ROWS = 3
FLASH = Layout(ROWS, SHORT, is_shared=False)
PLAIN = Layout(ROWS, 2 * SHORT, is_shared=False)
SHARED = Layout(ROWS, 2 * SHORT, is_shared=True)
TOKENS = list(range(20, 120))


@pytest.fixture
def llama(tmp_path: Path) -> Llama:
    """With memory for three short sequences."""
    file = write_tiny_gguf(tmp_path / "tiny.gguf", context=ROWS * PLAIN.num_cells)
    load = Load(str(file), "no-extra-buffers", context=0, parallel=ROWS, threads=1)
    llama = Llama(file, MODES["no-extra-buffers"], load, lambda _: None)
    assert llama.open(FLASH, largest_batch=256, threads=1, kv=KvTypes())
    return llama


def compute(llama: Llama, row: int, tokens: Sequence[int], start: int = 0) -> Floats:
    """The logits after the last token."""
    llama.batch.clear()
    llama.batch.add(tokens, position=start, row=row, wants_logits=True)
    llama.decode()
    return llama.logits(1)[0].copy()


@pytest.mark.parametrize("before", [FLASH, PLAIN, SHARED])
@pytest.mark.parametrize("after", [FLASH, PLAIN, SHARED])
def test_it_is_the_same_in_every_layout(llama: Llama, before: Layout, after: Layout) -> None:
    """What follows is what would have followed had it been computed there."""
    assert llama.resize(after)
    compute(llama, 1, TOKENS)
    expected = compute(llama, 1, [7], start=len(TOKENS))
    assert llama.resize(before)
    compute(llama, 2, TOKENS)
    state = llama.save(2, before)
    assert state.is_plain(len(TOKENS))
    assert state.is_transposed == (before is not FLASH)
    assert llama.resize(after)
    assert llama.restore(1, state, after)
    got = compute(llama, 1, [7], start=len(TOKENS))
    # Keys and values are in 16 bits, and summed up in another order.
    np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("layout", [FLASH, PLAIN])
def test_turned_twice_it_is_what_it_was(llama: Llama, layout: Layout) -> None:
    """To the last byte."""
    assert llama.resize(layout)
    compute(llama, 0, TOKENS)
    state = llama.save(0, layout)
    turned = state.turned()
    assert turned.is_transposed != state.is_transposed
    assert turned.is_plain(len(TOKENS))
    assert not np.array_equal(turned.written(), state.written())
    np.testing.assert_array_equal(turned.turned().written(), state.written())


def test_the_first_of_what_was_turned(llama: Llama) -> None:
    """It does not matter what comes first."""
    compute(llama, 0, TOKENS)
    state = llama.save(0, FLASH)
    np.testing.assert_array_equal(state.turned().first(30).written(), state.first(30).turned().written())
