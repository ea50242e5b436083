"""Whatever a store's files say, a look into it ends, and nothing comes out of it that is not in it."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilotlight.registry.stores.places import places
from store_factory import GGUF, MLX, MODEL, PARAMS, HuggingFace, Ollama, look, write

WORDS = st.sampled_from(
    [
        "layers",
        "manifests",
        "digest",
        "mediaType",
        "size",
        "weight_map",
        "architectures",
        "downloadsFolder",
        "temperature",
        "LlamaForCausalLM",
        "model.safetensors",
        "../secret.gguf",
        "/etc/passwd",
        "sha256:" + "a" * 64,
        "sha256:../../secret.gguf",
        MODEL,
        PARAMS,
    ]
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner, max_size=5),
    max_leaves=20,
)

quickly = settings(max_examples=60, deadline=None, database=None)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@quickly
@given(VALUES | st.fixed_dictionaries({"layers": VALUES}), VALUES, st.binary(max_size=40))
def test_a_manifest_may_say_anything(manifest: Any, params: Any, junk: bytes) -> None:
    """Of itself, or of the file with its parameters."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret.gguf").write_bytes(GGUF)
        ollama = Ollama(Path(folder) / "ollama")
        ollama.add("ollama.ai/library/good/latest", params=params)
        ollama.write("ollama.ai/library/bad/latest", encoded(manifest).decode())
        ollama.write("ollama.ai/library/junk/latest", "").write_bytes(junk)
        found = ollama.scan().found
        assert "ollama/good:latest" in [model.names[0] for model in found]
        assert all(model.path.is_relative_to(ollama.root / "blobs") for model in found)


@quickly
@given(VALUES | st.fixed_dictionaries({"architectures": VALUES}), VALUES, st.text(max_size=60))
def test_a_repository_may_say_anything(config: Any, index: Any, ref: str) -> None:
    """Of its architecture, of its weights, of its revision."""
    with tempfile.TemporaryDirectory() as folder:
        hub = HuggingFace(Path(folder) / "hub")
        files = {"config.json": encoded(config), "model.safetensors.index.json": encoded(index)}
        hub.add("a/b", MLX | files)
        hub.add("a/c-GGUF", {"c-Q4_0.gguf": GGUF})
        (hub.repository("a/c-GGUF") / "refs" / "main").write_text(ref, encoding="utf-8")
        found = hub.scan().found
        assert "a/c-GGUF:Q4_0" in [model.names[0] for model in found]
        assert all(model.path.is_relative_to(hub.cache) for model in found)


@quickly
@given(VALUES | st.fixed_dictionaries({"downloadsFolder": VALUES}), st.text(max_size=60))
def test_lm_studio_may_say_anything(settings: Any, pointer: str) -> None:
    """Of its home and of its folder."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write(home, {".lmstudio/settings.json": encoded(settings)})
        (home / ".lmstudio-home-pointer").write_text(pointer, encoding="utf-8")
        for place in places(["lmstudio"], [], {}, home):
            assert os.path.isabs(os.path.realpath(place.path))


FILE_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
)


@quickly
@given(st.lists(FILE_NAMES, max_size=6))
def test_files_may_be_called_anything(names: list[str]) -> None:
    """What is listed can be printed on one line, and named in a request."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            write(Path(folder), {f"x{name}.gguf": GGUF})
        for model in look("folder", Path(folder)).found:
            assert model.names[0].isprintable()
            assert len(model.names[0]) <= 256
