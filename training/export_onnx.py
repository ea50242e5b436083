"""Write the Hugging Face folder as an ONNX Runtime GenAI folder, in 8 bits.

Needs torch, transformers, onnx and onnxruntime-genai, whose model builder does the work.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# What the model builder is asked for, by the precision of the matrices. RESULTS.md has what others scored.
PRECISIONS = {"int8": ("algo_config=k_quant",), "fp32": ()}
# Logits of a prompt's last token only: nobody looks at the others.
ALWAYS = ("prune_lm_head=true",)


def build(source: Path, target: Path, precision: str) -> None:
    """Replace the folder `target` by the export of `source`."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "built"
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "--precision", precision]
        command += ["--execution_provider", "cpu", "--input", str(source), "--output", str(built)]
        command += ["--cache_dir", str(Path(scratch) / "cache")]
        command += ["--extra_options", *ALWAYS, *PRECISIONS[precision]]
        # The builder imports onnxruntime, which would otherwise begin to upload what it is used for.
        subprocess.run(command, check=True, env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"})
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(built, target)


def main() -> None:
    """Arguments to `build`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="Hugging Face folder")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8", help="of the matrices")
    args = parser.parse_args()
    build(args.source, args.target, args.precision)
    for file in sorted(args.target.iterdir()):
        print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
