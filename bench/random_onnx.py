"""Makes an ONNX folder of random weights, 4 bits, 190 million parameters: decoding is nearly all the work.

Needs torch, transformers, onnx and onnxruntime-genai. Its tokenizer is the built-in model's.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

TOKENIZER = Path(__file__).parents[1] / "training" / "pilot-hf"

SHAPE = LlamaConfig(
    vocab_size=2048,
    hidden_size=1024,
    intermediate_size=2816,
    num_hidden_layers=16,
    num_attention_heads=16,
    num_key_value_heads=8,
    max_position_embeddings=4096,
    bos_token_id=2041,
    eos_token_id=2043,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="is made")
    target: Path = parser.parse_args().folder
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        LlamaForCausalLM(SHAPE).to(torch.bfloat16).save_pretrained(source)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TOKENIZER / name, source)
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "--precision", "int4"]
        command += ["--execution_provider", "cpu", "--input", str(source), "--output", str(target)]
        command += ["--cache_dir", str(Path(scratch) / "cache"), "--extra_options", "prune_lm_head=true"]
        # The builder imports onnxruntime, which would otherwise begin to upload what it is used for.
        subprocess.run(command, check=True, env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"})


if __name__ == "__main__":
    main()
