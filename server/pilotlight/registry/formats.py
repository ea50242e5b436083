"""Which runtime runs what a path leads to. Looks at names: what a file holds is the worker's business."""

from pathlib import Path

DEFAULT = "llamacpp"

MARKS = {"onnx": "genai_config.json", "mlx": "config.json"}
"""Per runtime that loads folders, the file that makes a folder one of its models; the first that is there."""


def runtime_of(path: Path) -> str:
    """The runtime for the path; the default for what is missing or not known, which refuses it by name."""
    return next((runtime for runtime, mark in MARKS.items() if (path / mark).is_file()), DEFAULT)
