"""Which runtime runs what a path leads to. Looks at names: what a file holds is the worker's business."""

import os
from pathlib import Path

DEFAULT = "llamacpp"

MARKS = {"onnx": "genai_config.json", "mlx": "config.json"}
"""Per runtime that loads folders, the file that makes a folder one of its models; the first that is there."""

PROJECTOR, STATISTICS = "mmproj", "imatrix"
"""In names of GGUF files that are no models: one makes tokens of images, the other served to quantize."""


def runtime_of(path: Path) -> str:
    """The runtime for the path; the default for what is missing or not known, which refuses it by name."""
    return next((runtime for runtime, mark in MARKS.items() if os.path.isfile(path / mark)), DEFAULT)


def is_of_model(name: str) -> bool:
    """A GGUF file of this name belongs to a model, and is none."""
    return any(mark in name.casefold() for mark in (PROJECTOR, STATISTICS))


def projector_of(path: Path) -> Path | None:
    """The first projector beside a GGUF file; None if there is none, or the folder cannot be read."""
    try:
        beside = sorted(path.parent.glob("*.gguf"))
    except OSError:
        return None
    found = (file for file in beside if PROJECTOR in file.name.casefold() and file != path)
    return next(found, None)
