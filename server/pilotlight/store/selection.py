"""Which files of a repository make the model that somebody means: what its runtime reads, and never code.

Pure: names in, names out.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath

from msgspec import Struct

from pilotlight.errors import BadRequest
from pilotlight.registry.formats import is_of_model
from pilotlight.registry.gguf import SHARD
from pilotlight.registry.stores.names import QUANTIZATION
from pilotlight.registry.stores.weights import ONNX

DEFAULT_QUANTIZATION = "Q4_K_M"

MAX_LISTED = 100
MAX_SHOWN = 200
"""Names in an error, and characters of each: a repository may have any number of either."""

FOLDERS = {"genai_config.json": ONNX, "config.json": ("model*.safetensors",)}
"""The file that makes a folder an ONNX or an MLX model, and its weights; the first that is there."""

READ = frozenset(
    {
        *FOLDERS,
        "model.safetensors.index.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }
)
"""What runtimes read besides weights."""

_QUANTIZATION = re.compile(rf"(?:^|[-._/])({QUANTIZATION})(?=[-./]|$)", re.IGNORECASE)


class Choice(Struct, frozen=True):
    """One model of a repository: its files, and the one to load, "" for their folder."""

    label: str
    """What stands for it in a model's name: a quantization, a file, a folder, or "" if it needs none."""
    entry: str
    files: tuple[str, ...]
    folder: str = ""
    """The one its files are in; in the store they are without it."""
    num_missing: int = 0
    """Parts of it that the repository does not have."""


def choose(repo: str, pick: str, paths: Iterable[str]) -> Choice:
    """The model that `pick` means. Raises `BadRequest` that lists what there is."""
    paths = sorted(paths)
    choices = ggufs(paths) or _folders(paths)
    if not choices:
        raise BadRequest(f"{repo} has no GGUF file and no ONNX or MLX folder", param="model")
    found = [choice for choice in choices if means(choice, pick)] if pick else choices
    if not pick and len(found) > 1:
        found = [choice for choice in choices if choice.label == DEFAULT_QUANTIZATION]
    if len(found) != 1:
        problem = f"has no {pick!r}" if pick and not found else "has several models"
        there = _listed({choice.label or "." for choice in choices})
        raise BadRequest(f"{repo} {problem}; there is: {there}. Pull one as {repo}:NAME", param="model")
    if found[0].num_missing:
        label = found[0].label[:MAX_SHOWN]
        raise BadRequest(f"{repo} lacks {found[0].num_missing} parts of {label}", param="model")
    return found[0]


def _listed(labels: Iterable[str]) -> str:
    shown = sorted(label[:MAX_SHOWN] for label in labels)
    others = len(shown) - MAX_LISTED
    return ", ".join(shown[:MAX_LISTED]) + (f" and {others} more" if others > 0 else "")


def quantization(path: str) -> str:
    """What a file's name says it is, in capitals; "" if it says nothing."""
    found = _QUANTIZATION.findall(path.removesuffix(".gguf"))
    return str(found[-1]).upper() if found else ""


def means(choice: Choice, pick: str) -> bool:
    """`pick` is its label, one of its files, its folder or its quantization, in letters of any size."""
    names = {choice.label.lower(), choice.folder.lower(), *(name.lower() for name in choice.files)}
    names |= {PurePosixPath(name).name for name in names} | {quantization(choice.entry).lower()}
    return pick.lower().rstrip("/") in names - {""}


def ggufs(paths: Sequence[str]) -> list[Choice]:
    """One per GGUF model: shards belong together; projectors and importance matrices are no models."""
    shards: Mapping[str, list[str]] = defaultdict(list)
    for path in paths:
        name = PurePosixPath(path).name.lower()
        if name.endswith(".gguf") and not is_of_model(name):
            found = SHARD.fullmatch(path)
            shards[f"{found['stem']}.gguf" if found else path].append(path)
    labels = [quantization(whole) for whole in shards]
    return [
        _gguf(whole, files, label if label and labels.count(label) == 1 else PurePosixPath(whole).name)
        for label, (whole, files) in zip(labels, shards.items(), strict=True)
    ]


def _gguf(whole: str, files: list[str], label: str) -> Choice:
    found = SHARD.fullmatch(files[0])
    folder = str(PurePosixPath(whole).parent)
    return Choice(
        label=label,
        entry=PurePosixPath(files[0]).name,
        files=tuple(files),
        folder="" if folder == "." else folder,
        num_missing=int(found["count"]) - len(files) if found else 0,
    )


def _folders(paths: Sequence[str]) -> list[Choice]:
    """One per folder that a runtime loads; of the kinds of them, the first that the repository has."""
    for mark, weights in FOLDERS.items():
        folders = [str(PurePosixPath(path).parent) for path in paths if PurePosixPath(path).name == mark]
        found = [_folder(paths, "" if folder == "." else folder, weights) for folder in folders]
        if whole := [choice for choice in found if any(_is_one(name, weights) for name in choice.files)]:
            return whole
    return []


def _folder(paths: Sequence[str], folder: str, weights: tuple[str, ...]) -> Choice:
    inside = [path for path in paths if str(PurePosixPath(path).parent) == (folder or ".")]
    files = [path for path in inside if _is_one(path, weights) or PurePosixPath(path).name in READ]
    return Choice(folder, "", tuple(files), folder)


def _is_one(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(PurePosixPath(path).name, pattern) for pattern in patterns)
