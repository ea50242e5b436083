"""Tells by a few reads whether a model's files are the ones they were.

Size and time of change of every file, and samples of what is in it: reading gigabytes for a whole hash would
take as long as loading them. Weights that differ, differ everywhere.
"""

import hashlib
import os
from pathlib import Path

from pilotlight.core import Model
from pilotlight.registry.stores.weights import weights_of

NUM_SAMPLES = 32

SAMPLE_BYTES = 4096


def digest_of(model: Model) -> str:
    """Of the files that a model is made of and of its adapters, wherever they lie. Blocks on them. Raises
    `OSError`."""
    digest = hashlib.sha256()
    for file in (*_files(model.path), *(Path(one.path) for one in model.loading.lora)):
        found = file.stat()
        name = file.name if model.path.is_dir() else ""  # a file may be renamed
        digest.update(os.fsencode(f"{name} {found.st_size} {found.st_mtime_ns}\n"))  # it may be no text
        digest.update(_samples(file, found.st_size))
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """Of a folder all, as tokenizers and templates lie beside the weights; but not what systems and editors
    leave there, hidden."""
    if not path.is_dir():
        return [*weights_of(path)]
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))


def _samples(file: Path, size: int) -> bytes:
    """All over the file, its beginning and its end among them."""
    last = max(0, size - SAMPLE_BYTES)
    with file.open("rb", buffering=0) as content:
        pieces = []
        for number in range(NUM_SAMPLES):
            content.seek(last * number // (NUM_SAMPLES - 1))
            pieces.append(content.read(SAMPLE_BYTES))
    return b"".join(pieces)
