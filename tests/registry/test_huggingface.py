"""The cache of huggingface_hub."""

import os
from pathlib import Path

import pytest

from pilotlight.registry.formats import runtime_of
from store_factory import GGUF, MLX, ONNX, HuggingFace, names, reasons

OTHER = "f" * 40


@pytest.fixture
def hub(tmp_path: Path) -> HuggingFace:
    return HuggingFace(tmp_path / "hub")


def test_a_file_named_after_its_repository_is_called_by_its_quantization(hub: HuggingFace) -> None:
    """Any other by its path there."""
    files = ["Qwen3-4B-Q4_K_M.gguf", "qwen3-4b-ud-iq2_xxs.gguf", "bf16/Qwen3-4B-BF16.gguf", "special.gguf"]
    hub.add("unsloth/Qwen3-4B-GGUF", {file: GGUF + file.encode() for file in files})
    assert sorted(names(hub.scan())) == [
        "unsloth/Qwen3-4B-GGUF:BF16",
        "unsloth/Qwen3-4B-GGUF:Q4_K_M",
        "unsloth/Qwen3-4B-GGUF:UD-IQ2_XXS",
        "unsloth/Qwen3-4B-GGUF:special",
    ]


def test_the_parts_of_a_file_are_one_model(hub: HuggingFace) -> None:
    """Loaded by the first, as llama.cpp does it."""
    parts = {f"Q8_0/M-Q8_0-0000{number}-of-00002.gguf": GGUF + bytes([number]) for number in (1, 2)}
    snapshot = hub.add("a/M-GGUF", parts)
    (found,) = hub.scan().found
    assert found.names[0] == "a/M-GGUF:Q8_0"
    assert found.path == snapshot / "Q8_0" / "M-Q8_0-00001-of-00002.gguf"
    assert len(found.weights) == len(found.digests) == 2


def test_a_part_that_is_missing_is_told(hub: HuggingFace) -> None:
    """Half a model is none."""
    hub.add("a/M-GGUF", {"M-00002-of-00003.gguf": GGUF})
    assert names(hub.scan()) == []
    assert "M-00002-of-00003.gguf: is one of 3 parts, of which 1 are there" in reasons(hub.scan())


def test_projectors_and_other_networks_are_no_models_and_no_news(hub: HuggingFace) -> None:
    """A cache is full of them."""
    bert = MLX | {"config.json": b'{"architectures": ["BertModel"]}'}
    hub.add("a/vision-GGUF", {"mmproj-vision-F16.gguf": GGUF, "vision.imatrix.gguf": GGUF})
    hub.add("a/bert", bert)
    hub.add("a/readme", {"README.md": b"# hi", "config.json": b"{}"})
    assert (names(hub.scan()), reasons(hub.scan())) == ([], "")


def test_folders_of_mlx_and_onnx_are_models(hub: HuggingFace) -> None:
    """ONNX often one per device, inside."""
    hub.add("mlx-community/small", MLX)
    hub.add("a/phi-onnx", {f"cpu/int4/{name}": content for name, content in ONNX.items()})
    found = {model.names[0]: runtime_of(model.path) for model in hub.scan().found}
    assert found == {"a/phi-onnx:cpu/int4": "onnx", "mlx-community/small": "mlx"}


def test_a_folder_that_is_not_whole_is_told(hub: HuggingFace) -> None:
    """By what is missing."""
    index = b'{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    hub.add("a/shards", MLX | {"model.safetensors.index.json": index})
    hub.add("a/tokens", {name: content for name, content in MLX.items() if name != "tokenizer.json"})
    told = reasons(hub.scan())
    assert names(hub.scan()) == []
    assert "is not whole: 'model-2.safetensors' is missing" in told
    assert "is not whole: tokenizer.json is missing" in told


@pytest.mark.parametrize("shard", ['["x"]', '{"x": {}}', "1", "null", "[" * 500 + "]" * 500])
def test_an_index_without_names_costs_its_model_only(hub: HuggingFace, shard: str) -> None:
    """Whatever stands in their place."""
    index = b'{"weight_map": {"a": "model.safetensors", "b": %s}}' % shard.encode()
    hub.add("a/shards", MLX | {"model.safetensors.index.json": index})
    hub.add("a/good", MLX)
    assert names(hub.scan()) == ["a/good"]
    assert "is not whole: the name of a file in model.safetensors.index.json is missing" in reasons(
        hub.scan()
    )


@pytest.mark.parametrize(
    "shard", ["../../secret", "/etc/passwd", "C:model.safetensors", "a\\0b", "a\\b", ".."]
)
def test_an_index_names_only_files_of_its_folder(hub: HuggingFace, shard: str) -> None:
    """It is a stranger's word."""
    index = b'{"weight_map": {"a": "%s"}}' % shard.replace("\\", "\\\\").encode()
    hub.add("a/shards", MLX | {"model.safetensors.index.json": index})
    assert names(hub.scan()) == []
    assert "is not whole" in reasons(hub.scan())


def test_the_revision_that_main_names_counts(hub: HuggingFace) -> None:
    """What only an older one has is still there."""
    hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF + b"old", "M-Q8_0.gguf": GGUF}, OTHER, ref="old")
    new = hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF + b"new"})
    os.utime(new, (1, 1))
    paths = {model.names[0]: model.path.parent.name for model in hub.scan().found}
    assert paths == {"a/M-GGUF:Q4_0": new.name, "a/M-GGUF:Q8_0": OTHER}


def test_without_main_the_newest_revision_counts(hub: HuggingFace) -> None:
    """A cache may hold nothing but what one asked for by its hash."""
    old = hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF + b"old"}, OTHER, ref="old")
    new = hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF + b"new"}, ref="new")
    os.utime(old, (1, 1))
    assert [model.path.parent for model in hub.scan().found] == [new]


@pytest.mark.parametrize("ref", ["../../../outside", "/outside", "", "\0", "x" * 10**6])
def test_a_ref_that_is_no_revision_names_nothing(hub: HuggingFace, ref: str) -> None:
    """The snapshots are found without it."""
    hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF})
    (hub.repository("a/M-GGUF") / "refs" / "main").write_text(ref)
    assert names(hub.scan()) == ["a/M-GGUF:Q4_0"]


def test_a_download_that_was_not_finished_is_told(hub: HuggingFace) -> None:
    """It has no name yet."""
    snapshot = hub.add("a/M-GGUF", {"README.md": b""})
    (snapshot.parents[1] / "blobs" / f"{'a' * 64}.incomplete").write_bytes(GGUF)
    assert names(hub.scan()) == []
    assert "models--a--M-GGUF: has a file that is still being downloaded" in reasons(hub.scan())


def test_a_link_to_nothing_is_told(hub: HuggingFace) -> None:
    """Somebody deleted the blob."""
    snapshot = hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF, "M-Q8_0.gguf": GGUF + b"8"})
    (snapshot / "M-Q4_0.gguf").resolve().unlink()
    assert names(hub.scan()) == ["a/M-GGUF:Q8_0"]
    assert "M-Q4_0.gguf: is a link that leads nowhere" in reasons(hub.scan())


def test_links_between_the_cache_s_own_folders_are_followed(hub: HuggingFace) -> None:
    """A blob may lead on to the store that repositories share; its name there is not its SHA-256."""
    snapshot = hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF})
    blob = (snapshot / "M-Q4_0.gguf").resolve()
    shared = hub.cache / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    (found,) = hub.scan().found
    assert found.digests == {blob.name}


@pytest.mark.parametrize("inside", ["snapshots/x/M.gguf", "snapshots", "snapshots/x", "blobs", "refs"])
def test_a_link_out_of_the_cache_is_refused(hub: HuggingFace, tmp_path: Path, inside: str) -> None:
    """Of a file or of any folder on the way."""
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    for file in (outside / "M.gguf", outside / "x" / "M.gguf", outside / "main"):
        file.write_bytes(GGUF)
    link = hub.repository("a/M") / inside
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "M.gguf" if inside.endswith(".gguf") else outside)
    assert names(hub.scan()) == []
    assert f"{link.name}: leads out of the store, to {outside}" in reasons(hub.scan())


def test_a_pointer_of_git_lfs_is_no_model(hub: HuggingFace) -> None:
    """Nor is anything else that only ends in .gguf."""
    hub.add("a/M-GGUF", {"M-Q4_0.gguf": b"version https://git-lfs.github.com/spec/v1"})
    assert "M-Q4_0.gguf: is no GGUF file" in reasons(hub.scan())
