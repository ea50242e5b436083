"""Write the Hugging Face folder as an MLX folder, mostly in 4 bits, or in 32.

Needs mlx and mlx-lm, which quantizes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, quantize_model

PRECISIONS = ("int4", "fp32")
GROUP_SIZE, BITS = 32, 4

EMBEDDING_BITS = 8
"""The embedding is the output matrix, too."""

COPIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def how(_path: str, layer: nn.Module) -> bool | dict[str, Any]:
    """The layer's own quantization, or True for the common one."""
    return {"group_size": GROUP_SIZE, "bits": EMBEDDING_BITS} if isinstance(layer, nn.Embedding) else True


def build(source: Path, target: Path, precision: str) -> None:
    """Replace the folder `target` by the export of `source`."""
    model, config = load_model(source)
    # Scales and activations in 32 bits: in 16, a few answers fall over, and it is 0.4 MB.
    model.set_dtype(mx.float32)
    if precision == "int4":
        model, config = quantize_model(model, config, GROUP_SIZE, BITS, quant_predicate=how)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in COPIED:
        shutil.copy(source / name, target / name)


def main() -> None:
    """Arguments to `build`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="Hugging Face folder")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--precision", choices=PRECISIONS, default="int4", help="of the matrices")
    args = parser.parse_args()
    build(args.source, args.target, args.precision)
    for file in sorted(args.target.iterdir()):
        print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
