"""What a model folder's JSON files say: which architecture it is, and which files hold its weights.

Knows the files, not the library.
"""

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec import Struct

from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.folder import GENERATION_CONFIG, file_name, read_json

CONFIG = "config.json"
INDEX, WEIGHTS = "model.safetensors.index.json", "model*.safetensors"

LONGEST = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
"""Where architectures say how many tokens they were trained on; the first that is there counts."""


class Checkpoint(Struct, frozen=True):
    """One model folder."""

    folder: Path
    config: dict[str, Any]
    """All of `config.json`: each architecture has fields of its own."""
    kind: str
    """The architecture, "llama" or such; a module's name."""
    weights: tuple[Path, ...]
    context_trained: int
    """0: it does not say."""
    end_tokens: tuple[int, ...]
    """Of the first file that names any."""
    other_ends: tuple[int, ...]
    """Of the others."""
    quantization: dict[str, Any]
    """MLX's `group_size` and `bits`, and exceptions by the name of a layer; empty if nothing is quantized."""

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """Raises `LoadError` for what is no such folder, and for one that wants to run code of its own."""
        if not folder.exists():
            raise LoadError(f"{folder} does not exist")
        config = read_json(folder / CONFIG)
        if "model_file" in config:
            raise LoadError(f"{folder / CONFIG} names code to run, {config['model_file']!r}: none is run")
        generation = read_json(folder / GENERATION_CONFIG) if (folder / GENERATION_CONFIG).exists() else {}
        text = config.get("text_config", config)
        try:
            ends, other_ends = _ends(one.get("eos_token_id") for one in (generation, config, text))
            return cls(
                folder=folder,
                config=config,
                kind=_kind(config["model_type"]),
                weights=_weights(folder),
                context_trained=next((int(text[name]) for name in LONGEST if text.get(name)), 0),
                end_tokens=ends,
                other_ends=other_ends,
                quantization=_quantization(config),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            reason = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise LoadError(f"{folder / CONFIG} describes no text generation model: {reason}") from exc


def _kind(name: str) -> str:
    """Module names only: a stranger's word is about to be imported."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise ValueError(f"model_type {name!r} is no architecture")
    return name


def _weights(folder: Path) -> tuple[Path, ...]:
    """The files that the index names, or without one, all there are."""
    if not (folder / INDEX).exists():
        found = tuple(sorted(folder.glob(WEIGHTS)))
        if not found:
            raise LoadError(f"{folder} has no {WEIGHTS}")
        return found
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise LoadError(f"{folder / INDEX} names no files")
    files = tuple(folder / file_name(name) for name in sorted(set(index.values())))
    for file in files:
        if not file.is_file():
            raise LoadError(f"{folder} has no {file.name}")
    return files


def _ends(said: Iterable[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Those that the first says that says any, and those that the others say; a token's number may be 0."""
    found = [one if isinstance(one, list) else [one] for one in said if one not in (None, [])]
    first, *others = [tuple(map(int, tokens)) for tokens in found] or [()]
    return first, tuple(chain.from_iterable(others))


def _quantization(config: dict[str, Any]) -> dict[str, Any]:
    """MLX's own; other libraries' layouts would have to be converted."""
    if found := config.get("quantization"):
        layers: dict[str, Any] = found
        return {"group_size": int(found["group_size"]), "bits": int(found["bits"]), **layers}
    if other := config.get("quantization_config"):
        raise ValueError(f"its weights are quantized by {other.get('quant_method')}, not by MLX")
    return {}
