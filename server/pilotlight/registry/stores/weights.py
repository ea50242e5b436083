"""Which files of a folder are models, and which files a model is made of. Opens none but small ones of JSON.

A GGUF file may be the first of several parts. A folder of ONNX or safetensors is one model.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import islice, takewhile
from pathlib import Path

from pilotlight.registry.formats import DEFAULT, MARKS, is_of_model, runtime_of
from pilotlight.registry.stores.tree import MAX_ENTRIES, Tree, is_plain

PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<total>[0-9]{5})")
"""The name of one of several parts, without its suffix, as llama.cpp's gguf-split writes it."""

INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
ONNX = ("*.onnx", "*.data", "*.onnx_data*")
"""A graph, and the weights outside it, maybe several files: `model.onnx_data`, `model.onnx_data_1`."""

MAX_INDEX_BYTES = 32 * 2**20
MAX_CONFIG_BYTES = 2**20


def ggufs(tree: Tree, files: Sequence[Path]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Per GGUF model among a folder's sorted files: its name without suffix and number, and its files."""
    models: dict[tuple[str, int], list[Path]] = {}
    for file in files:
        if file.suffix.casefold() == ".gguf" and not is_of_model(file.name):
            models.setdefault(_parts(file), []).append(file)
    for (stem, num_parts), parts in models.items():
        if len(parts) != num_parts:
            tree.skip(parts[0], f"is one of {num_parts} parts, of which {len(parts)} are there")
        elif all(_is_gguf(tree, part) for part in parts):
            yield stem, tuple(parts)


def folder_weights(tree: Tree, files: Sequence[Path]) -> tuple[Path, ...]:
    """The weights of the model that a folder's files are; none if they are none, or not a whole one."""
    by_name = {file.name: file for file in files}
    if MARKS["onnx"] in by_name:
        missing = None if any(file.suffix == ".onnx" for file in files) else "a .onnx file"
    elif MARKS["mlx"] in by_name and any(file.suffix == ".safetensors" for file in files):
        if not _generates_text(tree, by_name[MARKS["mlx"]]):
            return ()
        missing = _missing_shard(tree, by_name)
    else:
        return ()
    if missing or TOKENIZER not in by_name:
        tree.skip(files[0].parent, f"is not whole: {missing or TOKENIZER} is missing")
        return ()
    # All of them, as what lies beside the weights is told by no other mark when it is written over.
    return tuple(file for file in files if tree.stat(file) and _is_weights(file.name))


def weights_of(path: Path) -> tuple[Path, ...]:
    """The files that a model's path stands for, whatever they hold; none if it leads nowhere we may look."""
    if os.path.isdir(path):
        inside = filter(os.path.isfile, _inside(path))
        return tuple(sorted(file for file in inside if _is_weights(file.name)))
    stem, num_parts = _parts(path)
    names = (f"{stem}-{number:05}-of-{num_parts:05}{path.suffix}" for number in range(1, num_parts + 1))
    files = (path.parent / name for name in names) if num_parts > 1 else iter((path,))
    return tuple(takewhile(os.path.isfile, files))


def changed(path: Path) -> int:
    """When the newest of a model's files was, in Unix seconds; 0 if it is not there, or not for us to see.

    Of a folder's own time nothing follows: also files that come and go without being the model's change it.
    """
    files = filter(os.path.isfile, _inside(path)) if os.path.isdir(path) else iter(weights_of(path))
    return max(map(_changed, files), default=0)


def is_whole(path: Path) -> bool:
    """The weights are there, and in a folder what says whose they are: a copy brings one after the other."""
    return bool(weights_of(path)) and (runtime_of(path) != DEFAULT or not os.path.isdir(path))


def bytes_of(path: Path) -> int:
    """Of these files; 0 if one of them goes meanwhile."""
    try:
        return sum(file.stat().st_size for file in weights_of(path))
    except OSError:
        return 0


def _inside(folder: Path) -> list[Path]:
    """What lies in it, without hidden files: a system may leave some wherever somebody looks."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, MAX_ENTRIES)]
    except OSError:
        return []
    return [folder / name for name in names if not name.startswith(".")]


def _changed(path: Path) -> int:
    try:
        return int(os.path.getmtime(path))
    except (OSError, ValueError):
        return 0


def _is_weights(name: str) -> bool:
    """A file of this name holds weights of the model that its folder is."""
    return any(fnmatch(name, pattern) for pattern in ("*.safetensors", *ONNX))


def _parts(file: Path) -> tuple[str, int]:
    """What all parts of its model are named, and how many they are."""
    match = PART.fullmatch(file.stem)
    return (match["stem"], int(match["total"])) if match else (file.stem, 1)


def _is_gguf(tree: Tree, file: Path) -> bool:
    """By its first bytes: what is still being downloaded, or only points to a file elsewhere, has others."""
    found = tree.stat(file)
    try:
        with file.open("rb") as stream:
            is_gguf = stream.read(4) == b"GGUF"
    except OSError as exc:
        tree.skip(file, f"cannot be read: {exc.strerror}")
        return False
    if not is_gguf or found is None or not stat.S_ISREG(found.st_mode):
        tree.skip(file, "is no GGUF file, or not a whole one")
        return False
    return True


def _generates_text(tree: Tree, config: Path) -> bool:
    """Most folders in a cache are other networks; they are no news."""
    architectures = _json(tree, config, MAX_CONFIG_BYTES).get("architectures")
    names = architectures if isinstance(architectures, list) else []
    return any(
        str(name).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names
    )


def _missing_shard(tree: Tree, by_name: dict[str, Path]) -> str | None:
    """A file that the index names and that is not there."""
    if INDEX not in by_name:
        return None
    shards = _json(tree, by_name[INDEX], MAX_INDEX_BYTES).get("weight_map")
    names = list(shards.values()) if isinstance(shards, dict) else []
    if not all(isinstance(name, str) for name in names):
        return f"the name of a file in {INDEX}"
    wrong = sorted(name for name in set(names) if not is_plain(name) or name not in by_name)
    return repr(wrong[0][:100]) if wrong else None


def _json(tree: Tree, file: Path, max_bytes: int) -> dict[str, object]:
    """The object in it; an empty one if there is none."""
    try:
        value = json.loads(tree.read(file, max_bytes) or b"null")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
