"""Writes MLX folders of tiny models with random weights, of any architecture."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

import pilotlight
from pilotlight.runtimes.mlx.architecture import find_module

BUILTIN = Path(pilotlight.__file__).with_name("builtin") / "pilot-mlx"

SMALL = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "vocab_size": 2048,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def write_random(folder: Path, **config: object) -> Path:
    """A model with the built-in one's tokenizer; `config` says what is not small or not Llama."""
    described = SMALL | config
    module = find_module(str(described["model_type"]))
    mx.random.seed(1)
    model = module.Model(module.ModelArgs.from_dict(described))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(described))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN / name, folder / name)
    return folder
