"""Feeds what reads strangers' files with damaged ones, for as long as it is told, guided by lines they reach.

    python tests/fuzz.py [TARGET ...] [--minutes N] [--seed N]

A reader may return, or refuse in its own way with a message of a few lines. Anything else, or more than
`SLOWEST_S` for one input, or more memory than `MOST_BYTES` ends it: the input is written beside, and the exit
code is 1. It is no part of the test suite; what it finds becomes one.
"""

import argparse
import io
import json
import random
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import msgspec

import pilotlight
from gguf_header import PUBLISHED, Words, header
from pilotlight.errors import Error
from pilotlight.registry.cost import Layout, estimate
from pilotlight.registry.folders import FolderShape, estimate_folder
from pilotlight.registry.gguf import read_header
from pilotlight.registry.reader import HeaderError
from pilotlight.registry.shape import Shape
from pilotlight.runtimes.archive import record
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.mlx.checkpoint import Checkpoint
from pilotlight.runtimes.onnx.export import Export
from pilotlight.store.plan import plan_hub
from pilotlight.store.reference import HubReference, parse
from pilotlight.store.remote import models_of
from pilotlight.store.retry import Interrupted, wait_of
from pilotlight.store.store import Store
from store_factory import MODEL, PARAMS, Ollama

PACKAGE = str(Path(pilotlight.__file__).parent)
BUILTIN = Path(PACKAGE) / "builtin"

SLOWEST_S = 10.0
"""Being watched makes it ten times slower."""

MOST_BYTES = 3 * 2**30

LONGEST_MESSAGE = 2000

EDGES = (0, 1, -1, 2**7, 2**16, 2**24, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)

VALUES: tuple[Any, ...] = (
    *EDGES,
    None,
    True,
    [],
    {},
    "",
    "../x",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "x" * 5000,
    0.5,
    float("inf"),
    float("nan"),
    10**400,
    [[]],
    [None],
    {"": None},
)
"""What takes the place of a value in JSON."""

Mutate = Callable[[bytes, bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A reader, what it is told to begin with, how that is damaged, and what it may raise."""

    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    mutate: Mutate
    refusals: tuple[type[Exception], ...]


# --- how inputs are damaged ---


def damage(raw: bytes, other: bytes, draw: random.Random) -> bytes:
    """A few bytes are others, missing, twice, or another input's."""
    data = bytearray(raw)
    for _ in range(draw.randint(1, 6)):
        at, length = draw.randrange(len(data) + 1), draw.choice((1, 2, 4, 8, 60))
        match draw.randrange(5):
            case 0:
                edge = draw.choice((*EDGES, draw.getrandbits(64))) % 2**64
                data[at : at + 8] = struct.pack("<Q", edge)[: draw.choice((1, 2, 4, 8))]
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                start = draw.randrange(len(other) + 1)
                data[at:at] = other[start : start + length]
            case 4 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
    return bytes(data)


def damage_json(raw: bytes, other: bytes, draw: random.Random) -> bytes:
    """Some values are others; now and then it is damaged as bytes."""
    if draw.random() < 0.1:
        return damage(raw, other, draw)
    try:
        value = json.loads(raw)
        for _ in range(draw.randint(1, 3)):
            value = _replaced(value, draw)
        return json.dumps(value).encode(errors="surrogatepass")
    except (ValueError, RecursionError):
        return damage(raw, other, draw)


def _replaced(value: Any, draw: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(VALUES)
    key: Any = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    if draw.random() < 0.1:
        return {one: value[one] for one in value if one != key} if isinstance(value, dict) else value[:key]
    copy = value.copy()
    copy[key] = _replaced(value[key], draw)
    return copy


# --- what is read ---


def read_gguf(raw: bytes) -> object:
    shape = Shape.of(read_header(io.BytesIO(raw)))
    return [estimate(shape, layout) for layout in (Layout(), Layout(mmap=True, full_windows=False))]


class Folders:
    """Readers of files in folders, which are made anew for each input."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def onnx(self, raw: bytes) -> object:
        folder = self._folder(BUILTIN / "pilot-onnx", "genai_config.json", raw)
        shape = FolderShape.of(folder, "onnx")
        return estimate_folder(shape, context=4096, parallel=4), list(Export.read(folder).states())

    def mlx(self, raw: bytes) -> object:
        folder = self._folder(BUILTIN / "pilot-mlx", "config.json", raw)
        estimate_folder(FolderShape.of(folder, "mlx"), context=4096, parallel=4, kv_bits=8)
        return Checkpoint.read(folder)

    def mlx_index(self, raw: bytes) -> object:
        name = "model.safetensors.index.json"
        folder = self._folder(BUILTIN / "pilot-mlx", name, raw)
        try:
            return Checkpoint.read(folder)
        finally:
            (folder / name).unlink()

    def _folder(self, like: Path, name: str, raw: bytes) -> Path:
        folder = self._root / like.name
        folder.mkdir(exist_ok=True)
        for file in like.iterdir():
            if file.name != name and not (folder / file.name).exists():
                (folder / file.name).symlink_to(file)
        (folder / name).write_bytes(raw)
        return folder

    def ollama(self, raw: bytes) -> object:
        store = Ollama(Path(tempfile.mkdtemp(dir=self._root)))
        store.write("ollama.ai/library/x/latest", "").write_bytes(raw)
        return store.scan()

    def archive(self, raw: bytes) -> object:
        """Its sums are right: whoever can write a file can write those."""
        path = self._root / "record"
        digest = record.DIGEST(raw)
        whole = record.DIGEST(digest.digest() + bytes(8))
        lead = struct.pack("<8sII32s", record.MAGIC, record.VERSION, len(raw), digest.digest())
        path.write_bytes(lead + raw + bytes(8) + whole.digest())
        path.chmod(0o600)
        return record.read(path, record.read_header(path))

    def version(self, raw: bytes) -> object:
        return self._store("version.json", raw)

    def model(self, raw: bytes) -> object:
        return self._store("model.json", raw)

    def _store(self, name: str, raw: bytes) -> object:
        folder = self._root / "store" / "models" / "a%2Fb" / "0123456789ab"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "x.gguf").touch()
        (folder.parent / "model.json").write_bytes(MODEL_JSON)
        (folder / "version.json").write_bytes(VERSION_JSON)
        (folder / name if name == "version.json" else folder.parent / name).write_bytes(raw)
        store = Store(self._root / "store")
        return store.models(), store.waste()


def read_listing(raw: bytes) -> object:
    """What a hub may answer."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

    def answer(*_: Any, **__: Any) -> ModelInfo:
        return ModelInfo(**httpx2.Response(200, content=raw).json())

    with mock.patch.object(HfApi, "model_info", answer):
        reference = HubReference("a/b", pick="Q8_0")
        return plan_hub(reference, 1.0), models_of(reference)


def read_text(raw: bytes) -> object:
    """What somebody asks for, or a server to wait."""
    text = raw.decode("latin-1")
    return wait_of({"retry-after": text}), parse(text)


MODEL_JSON = b'{"name": "a/b", "origin": "a/b", "active": "0123456789ab", "failures": {"x": "y"}}'
VERSION_JSON = (
    b'{"id": "0123456789ab", "origin": "a/b", "revision": "", "pulled": 1.0, "entry": "x.gguf", '
    b'"files": [{"path": "x.gguf", "digest": "sha256:00", "size": 0}]}'
)


def targets(root: Path) -> dict[str, Target]:
    folders = Folders(root)
    headers = sorted((Path(__file__).parent / "registry" / "headers").glob("*.gguf"))
    small: dict[str, Any] = {"llama.block_count": 2, "llama.embedding_length": 64}
    small |= {"tokenizer.ggml.tokens": Words(40), "tokenizer.ggml.merges": Words(3)}
    rows = [("token_embd.weight", (64, 40), "Q8_0"), ("blk.0.attn_q.weight", (64, 64), "F32")]
    ggufs = [header({"general.architecture": "llama", **small}, rows), *(one.read_bytes() for one in headers)]
    ggufs += [header(one.metadata() | small, list(one.tensors())[:9]) for one in PUBLISHED.values()]
    layers = [{"mediaType": kind, "digest": "sha256:" + "a" * 64, "size": 3} for kind in (MODEL, PARAMS)]
    manifest = {"layers": layers, "manifests": [{"layers": layers}]}
    kept = record.Header(b"key", b"\1\0\0\0", (record.Form("uint8", (2, 4)),), "Hi!", b"\2\0\0\0")
    sibling = {"rfilename": "x-Q8_0.gguf", "size": 2000, "blobId": "a" * 40}
    lfs = {"sha256": "b" * 64, "size": 2000, "pointerSize": 130}
    listing = {"id": "a/b", "sha": "c" * 40, "siblings": [sibling, {**sibling, "lfs": lfs}]}
    texts = [
        b"120",
        b"Fri, 31 Dec 1999 23:59:59 GMT",
        b"a/b@main:Q8_0",
        b"https://h/x.gguf#sha256=" + b"a" * 64,
    ]
    onnx, mlx = BUILTIN / "pilot-onnx" / "genai_config.json", BUILTIN / "pilot-mlx" / "config.json"
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors"}}

    def of_json(value: object, read: Callable[[bytes], object], *refusals: type[Exception]) -> Target:
        return Target(
            [value if isinstance(value, bytes) else json.dumps(value).encode()], read, damage_json, refusals
        )

    return {
        "gguf": Target(ggufs, read_gguf, damage, (HeaderError,)),
        "onnx": of_json(onnx.read_bytes(), folders.onnx, HeaderError, LoadError),
        "mlx": of_json(mlx.read_bytes(), folders.mlx, HeaderError, LoadError),
        "mlx-index": of_json(index, folders.mlx_index, LoadError),
        "ollama": of_json(manifest, folders.ollama),
        "archive": Target([msgspec.msgpack.encode(kept)], folders.archive, damage, (record.RecordError,)),
        "store-model": of_json(MODEL_JSON, folders.model),
        "store-version": of_json(VERSION_JSON, folders.version),
        "listing": of_json(listing, read_listing, Error, Interrupted),
        "text": Target(texts, read_text, damage, (Error,)),
    }


# --- running ---


class Reached:
    """The steps from line to line that the package has made, of all inputs."""

    def __init__(self) -> None:
        self._known: set[tuple[CodeType, int, int]] = set()
        self._last = 0
        self.is_new = False

    def run(self, read: Callable[[bytes], object], raw: bytes) -> None:
        """Raises what `read` does; `is_new` says whether this input made a step that none before did."""
        num_known = len(self._known)
        sys.settrace(self._on_call)
        try:
            read(raw)
        finally:
            sys.settrace(None)
            self.is_new = len(self._known) > num_known

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._on_line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._known.add((frame.f_code, self._last, frame.f_lineno))
        self._last = frame.f_lineno
        return self._on_line


def fault(target: Target, reached: Reached, raw: bytes) -> str | None:
    """What is wrong with how the input was read; None if nothing is."""
    started = time.process_time()
    try:
        reached.run(target.read, raw)
    except target.refusals as refusal:
        if not 0 < len(str(refusal)) <= LONGEST_MESSAGE:
            return f"a message of {len(str(refusal))} characters: {str(refusal)[:200]!r}"
    except Exception:  # that is what is looked for
        return traceback.format_exc()
    took = time.process_time() - started
    return f"it took {took:.1f} s" if took > SLOWEST_S else None


def fuzz(name: str, target: Target, until: float, draw: random.Random) -> bool:
    """False if something was found."""
    reached, corpus, num_runs = Reached(), list(target.seeds), 0
    for raw in target.seeds:
        if wrong := fault(target, reached, raw):
            return _tell(name, raw, wrong)
    while time.monotonic() < until:
        raw = target.mutate(draw.choice(corpus), draw.choice(corpus), draw)
        num_runs += 1
        if wrong := fault(target, reached, raw):
            return _tell(name, raw, wrong)
        if reached.is_new and len(raw) < 2**16:
            corpus.append(raw)
    print(f"{name}: {num_runs} inputs, {len(corpus) - len(target.seeds)} of them reached something new")
    return True


def _tell(name: str, raw: bytes, wrong: str) -> bool:
    file = Path(f"fuzz-{name}-{random.getrandbits(32):08x}")
    file.write_bytes(raw)
    print(f"{name}: {file}\n{wrong}")
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Feed readers with damaged files.")
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import logging
    import resource

    import structlog

    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as root:
        found = targets(Path(root))
        results = [
            fuzz(name, found[name], time.monotonic() + 60 * args.minutes, random.Random(args.seed))
            for name in args.targets or found
        ]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
