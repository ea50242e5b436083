"""Folders whose JSON says what no model has: refused in a line or two."""

import json
from pathlib import Path
from typing import Any

import pytest

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


def test_a_refusal_does_not_quote_all_of_a_file(tmp_path: Path) -> None:
    """It would be in the log and in an answer."""
    with pytest.raises(HeaderError, match="max_position_embeddings is 'xxx") as refusal:
        FolderShape.of(folder(tmp_path, {"max_position_embeddings": "x" * 10**6}, {}), "mlx")
    assert len(str(refusal.value)) < 600
