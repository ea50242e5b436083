"""Obtains a real tokenizer: the vocab-only GGUF of Llama 3 out of the llama-cpp-python source package.

It knows nothing about weights and never loads the tokenizer.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SOURCE_VERSION = "0.3.36"
MEMBER = "vendor/llama.cpp/models/ggml-vocab-llama-bpe.gguf"


def fetch_vocab(folder: Path) -> Path:
    """Return the vocab file kept in `folder`; the first call downloads the source package with pip."""
    vocab = folder / Path(MEMBER).name
    if not vocab.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            package = _download(Path(scratch))
            _extract(package, Path(scratch) / vocab.name)
            (Path(scratch) / vocab.name).replace(vocab)
    return vocab


def _download(folder: Path) -> Path:
    """Let pip fetch the source package, whatever index or mirror it is set up for."""
    wanted = f"llama-cpp-python=={SOURCE_VERSION}"
    # Of what builds it, binaries will do: pip would compile all of CMake otherwise.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    done = subprocess.run([*pip, "--dest", str(folder), wanted], check=False)
    packages = list(folder.glob("*.tar.gz"))
    if done.returncode or not packages:
        raise SystemExit(f"pip could not download the source of {wanted}; give a tokenizer with --vocab FILE")
    return packages[0]


def _extract(package: Path, target: Path) -> None:
    """Copy the one member wanted, whatever the top folder of the archive is called."""
    with tarfile.open(package) as archive:
        for member in archive:
            if member.name.endswith(MEMBER) and (source := archive.extractfile(member)):
                target.write_bytes(source.read())
                return
    raise SystemExit(f"{package.name} holds no {MEMBER}; give a tokenizer with --vocab FILE")
