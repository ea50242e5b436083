"""The cache of huggingface_hub: `models--owner--name/snapshots/REVISION/FILE`, links into `blobs/`.

A blob is named after what it holds: its SHA-256 if the hub keeps it as a large file.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pilotlight.registry.stores.digests import digests_of
from pilotlight.registry.stores.found import Found
from pilotlight.registry.stores.names import folder_names, gguf_names
from pilotlight.registry.stores.tree import Tree
from pilotlight.registry.stores.weights import folder_weights, ggufs

MAX_DEPTH = 4
"""Folders below a snapshot: repositories of ONNX models have one per device and precision."""

REPOSITORY = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?")
REVISION = re.compile(rb"[0-9a-f]{40}")


def find(tree: Tree) -> Iterator[Found]:
    """Every model in the cache, each in the newest revision that has it."""
    repositories, _ = tree.entries(tree.root)
    for folder in repositories:
        if match := REPOSITORY.fullmatch(folder.name):
            yield from _find_in(tree, folder, "/".join(filter(None, match.groups())))


def _find_in(tree: Tree, folder: Path, repository: str) -> Iterator[Found]:
    seen: set[tuple[str, ...]] = set()
    for snapshot in _snapshots(tree, folder):
        for found in _find_at(tree, snapshot, repository):
            if found.names not in seen:
                seen.add(found.names)
                yield found
    # They have no name in a snapshot yet, so nothing else tells of them.
    _, blobs = tree.entries(folder / "blobs")
    if any(blob.suffix == ".incomplete" for blob in blobs):
        tree.skip(folder, "has a file that is still being downloaded, or never was to its end")


def _find_at(tree: Tree, snapshot: Path, repository: str) -> Iterator[Found]:
    for folder, files in tree.walk(snapshot, MAX_DEPTH):
        inner = folder.relative_to(snapshot)
        for stem, weights in ggufs(tree, files):
            names = gguf_names(repository, inner, stem)
            yield Found("huggingface", names, weights[0], weights, digests_of(weights))
        if weights := folder_weights(tree, files):
            names = folder_names(repository, inner)
            yield Found("huggingface", names, folder, weights)


def _snapshots(tree: Tree, folder: Path) -> list[Path]:
    """The revision that `main` names, then the others, the newest first."""
    snapshots, _ = tree.entries(folder / "snapshots")
    _, refs = tree.entries(folder / "refs")
    main = next((tree.read(ref, 200) for ref in refs if ref.name == "main"), None) or b""
    revision = main.strip().decode() if REVISION.fullmatch(main.strip()) else None

    def age(snapshot: Path) -> tuple[bool, int]:
        found = tree.stat(snapshot)
        return snapshot.name != revision, -(found.st_mtime_ns if found else 0)

    return sorted(snapshots, key=age)
