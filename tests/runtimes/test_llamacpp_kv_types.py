"""Types of keys and values in llama.cpp: what they save, and that everything still works with them."""

from pathlib import Path

import pytest
from speaking import BUILTIN, Bench, generate

from pilotlight.core import Loading, Prompt
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.kv_types import NAMES, KvTypes
from pilotlight.runtimes.llamacpp.native import TYPES

QUESTION = Prompt(messages=({"role": "user", "content": "What can you do?"},))


def load(kv_cache_type: str, mode: str = "full", path: Path = BUILTIN / "pilot.gguf") -> Bench:
    """The built-in model, with keys and values of this type."""
    return Bench("llamacpp", path, mode, loading=Loading(kv_cache_type))


def bytes_of_state(bench: Bench) -> int:
    """What a hundred tokens take in memory."""
    bench.answer(generate([5] * 100, max_tokens=1))
    return int(bench.runtime._decoder.save(0, 100).written().nbytes)


@pytest.mark.parametrize("name", NAMES)
def test_every_type_works(name: str) -> None:
    """For keys and for values; the model still knows what it was taught."""
    bench = load(name)
    assert bench.answer(generate(QUESTION)).text.startswith("I ")
    assert bench.runtime._decoder._llama.has_plain_memory, "its states can be moved and shortened"


def test_every_type_has_its_number() -> None:
    """Of ggml.h."""
    assert set(TYPES) == set(NAMES)


def test_coarser_types_take_less_memory() -> None:
    """8 bits a good half, 4 bits a good quarter; of the keys alone, half of that is saved."""
    full = bytes_of_state(load("auto"))
    assert bytes_of_state(load("f16")) == full
    assert bytes_of_state(load("q8_0")) == pytest.approx(full * 17 / 32, rel=0.03)
    assert bytes_of_state(load("q4_0")) == pytest.approx(full * 9 / 32, rel=0.06)
    assert bytes_of_state(load("q8_0/f16")) == pytest.approx(full * 49 / 64, rel=0.03)


@pytest.mark.parametrize("name", ["q8_0", "q8_0/f16"])
def test_a_conversation_is_parked_shortened_and_continued(name: str) -> None:
    """With flash attention, where values are as keys, and without, where they are transposed."""
    bench = load(name)
    first = bench.answer(generate([7] * 40 + [9] * 20)).text
    bench.answer(generate([11] * 300))
    assert bench.answer(generate([7] * 40 + [12] * 5)).end.cached_tokens == 40
    again = bench.answer(generate([7] * 40 + [9] * 20))
    assert (again.text, again.end.cached_tokens) == (first, 59)


def test_values_cannot_be_quantized_without_flash_attention() -> None:
    """It is off where it crashed; keys alone can."""
    with pytest.raises(LoadError, match=r"kv_cache_type q8_0/q8_0 needs flash attention, .* q8_0/f16 would"):
        load("q8_0", "plain")
    assert load("q8_0/f16", "plain").answer(generate(QUESTION)).text.startswith("I ")


@pytest.mark.parametrize("name", ["q8_0", "q8_0/f16"])
def test_heads_that_are_no_whole_blocks_cannot_be_quantized(tiny_gguf: Path, name: str) -> None:
    """Without flash attention, llama.cpp would go on with nonsense."""
    with pytest.raises(
        LoadError, match="keys of 16 values cannot be kept as q8_0, which needs multiples of 32"
    ):
        load(name, path=tiny_gguf)


@pytest.mark.parametrize("text", ["q8", "q8_0/", "/f16", "f16/q8_0/f16", "auto/f16", ""])
def test_what_is_no_type_is_told(text: str) -> None:
    """With those there are."""
    with pytest.raises(ValueError, match=r"must be auto, one of f32, f16, bf16, q8_0, .* q8_0/f16"):
        KvTypes.parse(text)
