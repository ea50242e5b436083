"""LoRA adapters: what is checked before native code sees them, and what they cost."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from gguf_factory import write_lora
from pilotlight.core import Loading, Lora, Model
from pilotlight.registry.adapters import bytes_of
from pilotlight.registry.costs import Costs
from pilotlight.registry.ladder import Ladder
from pilotlight.registry.reader import HeaderError

SHAPES = {"blk.0.ffn_down.weight": (64, 128), "blk.1.attn_q.weight": (64, 64)}

NUM_BYTES = 4 * 4 * (64 + 128 + 64 + 64)
"""Four rows, and four columns, of 32 bits."""


def test_an_adapter_takes_what_its_matrices_do(tmp_path: Path) -> None:
    """In the type that the file has them in."""
    assert bytes_of(Lora(str(write_lora(tmp_path / "a.gguf", SHAPES))), "llama") == NUM_BYTES


def test_a_model_costs_its_adapters_too(tmp_path: Path, tiny_gguf: Path) -> None:
    """Another adapter, scale or state of the file is another cost to be measured."""
    costs = Costs(tmp_path / "state", Ladder(tmp_path / "state"))
    plain = Model("tiny", tiny_gguf)
    lora = Lora(str(write_lora(tmp_path / "a.gguf", SHAPES)), created=1)
    model = replace(plain, loading=Loading(lora=(lora, lora)))
    cost = costs.estimate(model)
    assert cost.at_load.private - costs.estimate(plain).at_load.private == 2 * NUM_BYTES
    costs.record(model, "full", cost.at_load)
    assert costs.estimate(model).is_measured
    for other in (replace(lora, scale=2.0), replace(lora, created=2)):
        assert not costs.estimate(replace(plain, loading=Loading(lora=(lora, other)))).is_measured


def test_an_adapter_is_for_one_architecture(tmp_path: Path) -> None:
    """Which is told, with the model's."""
    path = write_lora(tmp_path / "a.gguf", SHAPES, architecture="qwen2")
    with pytest.raises(HeaderError, match=r"a\.gguf is for models of the architecture qwen2, .* is llama"):
        bytes_of(Lora(str(path)), "llama")


def test_what_is_no_adapter_is_told(tmp_path: Path, tiny_gguf: Path) -> None:
    """A model, something else in the format of adapters, and a file cut off."""
    with pytest.raises(HeaderError, match=r"is no LoRA adapter in GGUF: it says to be a model of the"):
        bytes_of(Lora(str(tiny_gguf)), "llama")
    other = write_lora(tmp_path / "other.gguf", SHAPES, kind="vector")
    with pytest.raises(HeaderError, match="it says to be a vector of the architecture llama"):
        bytes_of(Lora(str(other)), "llama")
    cut = Path(shutil.copy(write_lora(tmp_path / "a.gguf", SHAPES), tmp_path / "cut.gguf"))
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(HeaderError, match=r"cut\.gguf: the file has"):
        bytes_of(Lora(str(cut)), "llama")
