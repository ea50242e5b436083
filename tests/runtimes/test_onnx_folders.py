"""Folders that are no models: the worker says so, or ends; nobody else is harmed.

Those whose files are read by native code are loaded in real workers, because it may die of them.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from speaking import BUILTIN, Bench

from pilotlight.core import Model
from pilotlight.runtimes.base import LoadError, MissingLibraryError
from pilotlight.runtimes.folder import Folder
from pilotlight.runtimes.onnx.native import import_onnxruntime
from pilotlight.worker.handle import LoadRefusedError, Worker, WorkerEndedError

LOAD_S = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, to be damaged."""
    return Path(shutil.copytree(BUILTIN / "pilot-onnx", tmp_path / "bad"))


async def load(path: Path) -> None:
    worker = await Worker.spawn(Model("bad", path, runtime="onnx", context=256, parallel=2, threads=1))
    try:
        await worker.load("full", lambda _: None, LOAD_S)
    finally:
        await worker.stop()


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Replace the contents of one file."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def configure(**changes: object) -> Callable[[Path], None]:
    """Change the decoder's description."""

    def change(raw: bytes) -> bytes:
        config = json.loads(raw)
        config["model"]["decoder"] |= changes
        return json.dumps(config).encode()

    return edit("genai_config.json", change)


def describe(**changes: object) -> Callable[[Path], None]:
    """Change the model's description."""

    def change(raw: bytes) -> bytes:
        config = json.loads(raw)
        config["model"] |= changes
        return json.dumps(config).encode()

    return edit("genai_config.json", change)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


OUTPUTS = {
    "logits": "logits",
    "present_key_names": "present.%d.key",
    "present_value_names": "present.%d.value",
}

UNREADABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (remove("genai_config.json"), "has no genai_config.json"),
    "no JSON": (edit("genai_config.json", lambda raw: raw[:40]), "genai_config.json cannot be read"),
    "no object": (edit("genai_config.json", lambda raw: b"[]"), "holds no JSON object"),
    "no decoder": (edit("genai_config.json", lambda raw: b'{"model": {}}'), "'decoder' is missing"),
    "no number": (configure(num_hidden_layers="many"), "describes no text generation model"),
    "an end that is no number": (
        edit("genai_config.json", lambda raw: raw.replace(b'_token_id": [', b'_token_id": ["x",')),
        "describes no text generation model",
    ),
    "a graph elsewhere": (configure(filename="../model.onnx"), "'../model.onnx' is no file name"),
    "endless layers": (configure(num_hidden_layers=10**9), "1000000000 is not between 1 and 4096"),
    "no heads": (configure(num_key_value_heads=0), "0 is not between 1 and 4096"),
    "no vocabulary": (describe(vocab_size=0), "0 is not between 1 and 16777216"),
    "no context": (describe(context_length=0), "0 is not between 1 and 16777216"),
    "an endless vocabulary": (describe(vocab_size=2**62), f"{2**62} is not between 1 and 16777216"),
    "endless names": (
        configure(
            inputs={
                "input_ids": "i",
                "attention_mask": "m",
                "past_key_names": "%999999999d",
                "past_value_names": "%d",
            }
        ),
        "'%999999999d' does not hold %d once",
    ),
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer.json"),
    "another tokenizer": (edit("tokenizer.json", lambda raw: b"{}"), "is no tokenizer"),
}

BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (shutil.rmtree, "does not exist"),
    "a vocabulary that is not the graph's": (describe(vocab_size=2**24), "cannot be computed"),
    "logits of another shape": (
        configure(outputs=OUTPUTS | {"logits": "present.0.key"}),
        "gives no logits as 'present.0.key'",
    ),
    "logits that go in": (
        configure(outputs=OUTPUTS | {"logits": "input_ids"}),
        "gives no logits as 'input_ids'",
    ),
    "no graph": (remove("model.onnx"), "has no model.onnx"),
    "an empty graph": (edit("model.onnx", lambda raw: b""), "cannot load"),
    "half a graph": (edit("model.onnx", lambda raw: raw[: len(raw) // 2]), "cannot load"),
    "noise": (edit("model.onnx", lambda raw: bytes(range(256)) * 40), "cannot load"),
    "no weights": (remove("model.onnx.data"), "cannot load"),
    "half of the weights": (edit("model.onnx.data", lambda raw: raw[: 10**6]), "cannot load"),
    "more layers than there are": (
        configure(num_hidden_layers=9),
        "no input or output 'past_key",
    ),
    "fewer layers than there are": (configure(num_hidden_layers=2), "needs the inputs past_key_values.2.key"),
    "heads of another size": (configure(head_size=32), "cannot be computed"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_can_be_seen_in_its_files_is_refused_before_native_code_sees_them(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is not even asked for."""
    damage, reason = UNREADABLE[name]
    damage(folder)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LoadError, match=re.escape(reason)) as caught:
        Bench("onnx", folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_folder_is_refused(folder: Path, name: str) -> None:
    """With a reason that names it."""
    damage, reason = BAD[name]
    damage(folder)
    with pytest.raises(LoadRefusedError) as caught:
        await load(folder)
    assert reason in str(caught.value)
    assert str(folder) in str(caught.value)


async def test_a_good_folder_is_loaded(folder: Path) -> None:
    """In the same way."""
    await load(folder)


async def test_damaged_weights_harm_only_their_worker(folder: Path) -> None:
    """They may be loaded, be refused, or kill the worker; the daemon hears which."""
    edit("model.onnx", lambda raw: raw[:9000] + b"\xff" * 64 + raw[9064:])(folder)
    try:
        await load(folder)
    except (LoadRefusedError, WorkerEndedError) as exc:
        assert str(exc)


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'pilotlight\[onnx\]'"):
        import_onnxruntime()


def test_a_missing_tokenizer_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever needs it."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingLibraryError, match="pip install 'tokenizers'"):
        Folder(BUILTIN / "pilot-onnx", num_vocab=1, end_tokens=())
