"""LoRA adapters in llama.cpp, on the built-in model."""

from pathlib import Path

import gguf
import pytest
from speaking import BUILTIN, Bench, generate

from gguf_factory import write_lora
from pilotlight.core import Loading, Lora, Prompt
from pilotlight.runtimes.base import LoadError

QUESTION = Prompt(messages=({"role": "user", "content": "What can you do?"},))

SCALE = 8.0
"""Enough to make a trained model forget its answers."""

SHAPES = {f"blk.{layer}.ffn_down.weight": (256, 512) for layer in range(4)}
"""Of the built-in model."""


def load(*loras: Lora, mode: str = "full") -> Bench:
    return Bench("llamacpp", BUILTIN / "pilot.gguf", mode, loading=Loading(lora=loras))


def answer(*loras: Lora, mode: str = "full") -> str:
    """What the model says with them."""
    return load(*loras, mode=mode).answer(generate(QUESTION)).text


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One that makes the model say something else."""
    return str(write_lora(tmp_path_factory.mktemp("lora") / "other.gguf", SHAPES))


def test_an_adapter_changes_what_the_model_says(adapter: str) -> None:
    """As far as its scale says: not at all with 0, and two of them can cancel each other."""
    plain = answer()
    assert answer(Lora(adapter, scale=SCALE)) != plain
    assert answer(Lora(adapter, scale=0.0)) == plain
    assert answer(Lora(adapter, scale=SCALE), Lora(adapter, scale=-SCALE)) == plain


@pytest.mark.parametrize("mode", ["full", "plain"])
def test_it_stays_when_memory_is_made_anew(adapter: str, mode: str) -> None:
    """A longer context is another one for llama.cpp; a parked conversation goes on in it as ever."""
    bench = load(Lora(adapter, scale=SCALE), mode=mode)
    # A few tokens: what is gone on from is rounded otherwise, and sooner or later two are nearly as likely.
    first = bench.answer(generate(QUESTION, max_tokens=6)).text
    bench.answer(generate([5] * 700))
    again = bench.answer(generate(QUESTION, max_tokens=6))
    fresh = load(Lora(adapter, scale=SCALE), mode=mode)
    assert again.text == first == fresh.answer(generate(QUESTION, max_tokens=6)).text
    assert again.end.cached_tokens > 0
    assert not answer(mode=mode).startswith(first)


@pytest.mark.parametrize(
    ("shapes", "architecture", "reason"),
    [
        (SHAPES, "qwen2", "model arch and LoRA arch mismatch"),
        ({"blk.9.ffn_down.weight": (256, 512)}, "llama", "does not exist in base model"),
        ({"blk.0.ffn_down.weight": (256, 256)}, "llama", "has incorrect shape"),
    ],
)
def test_an_adapter_for_another_model_is_an_error(
    tmp_path: Path, shapes: dict[str, tuple[int, int]], architecture: str, reason: str
) -> None:
    """That names the file and says what is wrong."""
    path = write_lora(tmp_path / "wrong.gguf", shapes, architecture=architecture)
    with pytest.raises(LoadError, match=rf"cannot load the LoRA adapter wrong\.gguf: .*{reason}"):
        load(Lora(str(path)))


def test_an_adapter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Of its own, not llama.cpp's."""
    with pytest.raises(LoadError, match=rf"the LoRA adapter {tmp_path}/none\.gguf does not exist"):
        load(Lora(str(tmp_path / "none.gguf")))


def test_an_adapter_that_wants_to_be_called_is_refused(tmp_path: Path) -> None:
    """It would be there all the time instead."""
    path = tmp_path / "called.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    writer.add_key_value(
        "adapter.alora.invocation_tokens", [5, 6], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LoadError, match=r"called\.gguf is to work only after certain tokens"):
        load(Lora(str(path)))
