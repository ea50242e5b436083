"""Ollama's store: `manifests/HOST/NAMESPACE/MODEL/TAG` names layers, which are files of `blobs/`.

One layer is the GGUF file; it has its own chat template, so the layer with Ollama's (in another language) is
not used. A manifest may list others, one per kind of runner.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from pilotlight.registry.stores.digests import digests_of
from pilotlight.registry.stores.found import Found
from pilotlight.registry.stores.tree import Tree
from pilotlight.settings import SamplingSettings

MANIFESTS = ("manifests-v2", "manifests")
"""The newer first: where both have a model, it is the one that counts."""

DOMAINS = ("ollama.ai", "ollama.com")
"""Ollama's own, whose hosts its names leave out."""

KIND = "application/vnd.ollama.image."
MODEL, ADAPTER, PARAMS = KIND + "model", KIND + "adapter", KIND + "params"

DIGEST = re.compile(r"sha256[-:]([0-9a-f]{64})")

MAX_MANIFEST_BYTES = 2**20


class Layer(msgspec.Struct, frozen=True):
    """A blob and what it is for."""

    digest: str = ""
    mediaType: str = ""
    size: int = -1


class Child(msgspec.Struct, frozen=True):
    """A manifest in a list of them, or where it is."""

    layers: tuple[Layer, ...] = ()
    digest: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """What a tag stands for: layers, or a list of manifests."""

    layers: tuple[Layer, ...] = ()
    manifests: tuple[Child, ...] = ()


def find(tree: Tree) -> Iterator[Found]:
    """Every tag that has a GGUF file: `ollama/llama3.2:3b`."""
    seen: set[str] = set()
    for file in _tags(tree):
        name = _name(file)
        if name not in seen:
            seen.add(name)
            yield from _find_at(tree, file, name)


def _tags(tree: Tree) -> Iterator[Path]:
    for root in (tree.root / name for name in MANIFESTS):
        for folder, files in tree.walk(root, depth=3):
            if len(folder.relative_to(root).parts) == 3:
                yield from files


def _name(tag: Path) -> str:
    *_, host, namespace, model, name = tag.parts
    is_own = ".".join(host.split(".")[-2:]) in DOMAINS
    steps = [namespace, model] if is_own else [host, namespace, model]
    return "ollama/" + "/".join(steps).removeprefix("library/") + f":{name}"


def _find_at(tree: Tree, file: Path, name: str) -> Iterator[Found]:
    layers = _layers(tree, file)
    models = [layer for layer in layers if layer.mediaType == MODEL]
    if len(models) != 1:
        tree.skip(file, f"names {len(models) or 'no'} GGUF files, not one")
    elif any(layer.mediaType == ADAPTER for layer in layers):
        tree.skip(file, "needs an adapter beside its GGUF file")
    elif (blob := _blob(tree, file, models[0])) is not None:
        yield Found("ollama", (name,), blob, (blob,), digests_of((blob,)), _sampling(tree, file, layers))


def _layers(tree: Tree, file: Path) -> tuple[Layer, ...]:
    """Of the manifest, or of the first in its list that has a GGUF file."""
    manifest = _decode(tree, file)
    for child in manifest.manifests:
        layers = child.layers or _layers_of_blob(tree, child.digest)
        if any(layer.mediaType == MODEL for layer in layers):
            return layers
    return manifest.layers


def _layers_of_blob(tree: Tree, digest: str) -> tuple[Layer, ...]:
    """Of a manifest that is a blob; none if it was never downloaded, as those for other machines."""
    path = _blob_path(tree, digest)
    return _decode(tree, path).layers if path and tree.file(path) else ()


def _decode(tree: Tree, file: Path) -> Manifest:
    try:
        return msgspec.json.decode(tree.read(file, MAX_MANIFEST_BYTES) or b"{}", type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        tree.skip(file, f"is no manifest: {exc}")
        return Manifest()


def _blob(tree: Tree, manifest: Path, layer: Layer) -> Path | None:
    """The file of a layer, if it is all there. A digest is the only thing that may name one."""
    blob = _blob_path(tree, layer.digest)
    if blob is None:
        tree.skip(manifest, f"names a file by {layer.digest[:100]!r}, which is no SHA-256 digest")
        return None
    found = tree.file(blob) and tree.stat(blob)
    if found is None:
        tree.skip(manifest, f"needs {blob.name[:19]}..., which cannot be used")
        return None
    if layer.size not in (-1, found.st_size):
        tree.skip(
            manifest, f"needs {layer.size} bytes of {blob.name[:19]}..., of which {found.st_size} are there"
        )
        return None
    return blob


def _blob_path(tree: Tree, digest: str) -> Path | None:
    match = DIGEST.fullmatch(digest)
    return tree.root / "blobs" / f"sha256-{match[1]}" if match else None


def _sampling(tree: Tree, manifest: Path, layers: tuple[Layer, ...]) -> dict[str, float]:
    """The values its author recommends, those that mean something here and are in range."""
    layer = next((layer for layer in layers if layer.mediaType == PARAMS), None)
    blob = _blob(tree, manifest, layer) if layer else None
    try:
        values = msgspec.json.decode(
            (blob and tree.read(blob, MAX_MANIFEST_BYTES)) or b"{}", type=dict[str, Any]
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {key: value for key, value in values.items() if _is_valid(key, value)}


def _is_valid(key: str, value: object) -> bool:
    try:
        SamplingSettings.model_validate({key: value}, strict=True)
    except ValidationError:
        return False
    return True
