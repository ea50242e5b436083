"""Folders whose JSON says what no model has: refused in a line or two."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from speaking import BUILTIN, Bench, generate
from tokenizers import Tokenizer

from pilotlight.core import Prompt
from pilotlight.errors import BadRequest
from pilotlight.registry.folders import FolderShape
from pilotlight.registry.reader import HeaderError
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.mlx.checkpoint import Checkpoint


def folder(path: Path, config: dict[str, Any], index: dict[str, Any]) -> Path:
    (path / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "model.safetensors").touch()
    return path


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"max_position_embeddings": float("inf")}, "model.safetensors"),
        ({"model_type": "x" * 5000 + "/"}, "model.safetensors"),
        ({}, "x" * 5000),
        ({}, ".."),
        ({}, "\ud800"),
    ],
)
def test_what_a_folder_says_is_read_or_refused(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    """Infinite numbers, and names that no file has."""
    hostile = folder(tmp_path, config, {"weight_map": {"a": name}})
    with pytest.raises(LoadError) as refusal:
        Checkpoint.read(hostile)
    assert 0 < len(str(refusal.value)) < 1100


@pytest.mark.parametrize(
    ("top", "inner", "generation", "expected"),
    [
        ({"eos_token_id": [3, 4]}, {"eos_token_id": 5}, {}, (3, 4)),
        ({}, {"eos_token_id": 5}, {"eos_token_id": []}, (5,)),
        ({"eos_token_id": 3}, {}, {"eos_token_id": 0}, (0,)),
        ({}, {}, {}, ()),
    ],
)
def test_the_ends_are_those_of_the_most_particular_file(
    tmp_path: Path, top: dict[str, Any], inner: dict[str, Any], generation: dict[str, Any], expected: object
) -> None:
    """How to generate, the whole model, its part for text: the first that says any."""
    path = folder(tmp_path, top | {"text_config": inner}, {"weight_map": {"a": "model.safetensors"}})
    (path / "generation_config.json").write_text(json.dumps(generation))
    assert Checkpoint.read(path).end_tokens == expected


def test_a_refusal_does_not_quote_all_of_a_file(tmp_path: Path) -> None:
    """It would be in the log and in an answer."""
    with pytest.raises(HeaderError, match="max_position_embeddings is 'xxx") as refusal:
        FolderShape.of(folder(tmp_path, {"max_position_embeddings": "x" * 10**6}, {}), "mlx")
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("name", ["onnx", "mlx"])
def test_text_of_a_token_that_the_model_has_not_is_refused(tmp_path: Path, name: str) -> None:
    """Its tokenizer knows one more; computing that would end the worker, or give nonsense."""
    path = Path(shutil.copytree(BUILTIN / f"pilot-{name}", tmp_path / "model"))
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_special_tokens(["<image_soft_token>"])
    tokenizer.save(str(path / "tokenizer.json"))
    bench = Bench(name, path)
    text = "Look: <image_soft_token>"
    messages = ({"role": "user", "content": text},)
    for param, prompt in (("prompt", Prompt(text=text)), ("messages", Prompt(messages=messages))):
        with pytest.raises(BadRequest, match="there is no token 2048; this model's are 0 to 2047") as caught:
            bench.start(generate(prompt))
        assert caught.value.param == param
