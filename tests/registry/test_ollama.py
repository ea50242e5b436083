"""Ollama's store."""

import json
from pathlib import Path

import pytest

from store_factory import GGUF, MODEL, Ollama, names, reasons

HOST = "ollama.ai"
TAG = f"{HOST}/library/llama3.2/3b"

DEEP = b'{"unknown": %s%s}' % (b"[" * 10**5, b"]" * 10**5)


@pytest.fixture
def ollama(tmp_path: Path) -> Ollama:
    return Ollama(tmp_path / "ollama")


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        (TAG, "ollama/llama3.2:3b"),
        (f"{HOST}/me/llama3.2/latest", "ollama/me/llama3.2:latest"),
        ("hf.co/unsloth/Qwen3-4B-GGUF/Q4_K_M", "ollama/hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M"),
    ],
)
def test_a_tag_is_a_model(ollama: Ollama, manifest: str, name: str) -> None:
    """As `ollama list` calls it, after the store's name."""
    ollama.add(manifest)
    (found,) = ollama.scan().found
    assert found.names == (name,)
    assert found.path.read_bytes() == GGUF
    assert found.digests == {found.path.name.removeprefix("sha256-")}


def test_the_newer_layout_is_read_too(ollama: Ollama) -> None:
    """A tag is a link to a manifest among the blobs; it counts where both layouts have the name."""
    manifest = ollama.add(TAG, GGUF + b"old")
    manifest = ollama.add("ollama.com/library/unused/x", GGUF + b"new")
    digest = ollama.blob(manifest.read_bytes())
    manifest.unlink()
    tag = ollama.root / "manifests-v2" / "ollama.com" / "library" / "llama3.2" / "3b"
    tag.parent.mkdir(parents=True)
    tag.symlink_to(Path("../../../../blobs") / digest.replace(":", "-"))
    (found,) = ollama.scan().found
    assert (found.names, found.path.read_bytes()) == (("ollama/llama3.2:3b",), GGUF + b"new")


@pytest.mark.parametrize("is_inline", [True, False])
def test_of_a_list_of_manifests_the_one_with_a_gguf_file_is_used(ollama: Ollama, is_inline: bool) -> None:
    """The other is for another runner, and was never downloaded here."""
    layers = [ollama.layer(MODEL, GGUF)]
    ours = (
        {"layers": layers} if is_inline else {"digest": ollama.blob(json.dumps({"layers": layers}).encode())}
    )
    ollama.write(TAG, {"manifests": [{"runner": "mlx", "digest": f"sha256:{'0' * 64}"}, ours]})
    assert (names(ollama.scan()), reasons(ollama.scan())) == (["ollama/llama3.2:3b"], "")


def test_sampling_values_of_its_author_are_taken(ollama: Ollama) -> None:
    """Those that mean something here and are in range."""
    ollama.add(TAG, params={"temperature": 0.25, "top_k": 20, "top_p": 7, "min_p": "x", "stop": ["<s>"]})
    (found,) = ollama.scan().found
    assert found.sampling == {"temperature": 0.25, "top_k": 20}


@pytest.mark.parametrize("params", [b"[]", b"{", b"\xff", b'{"temperature": 1e999}', b"[" * 10**5, DEEP])
def test_parameters_that_are_none_are_left_out(ollama: Ollama, params: bytes) -> None:
    """The model is fine without them."""
    layers = [ollama.layer(MODEL, GGUF), ollama.layer("application/vnd.ollama.image.params", params)]
    ollama.write(TAG, {"layers": layers})
    assert [found.sampling for found in ollama.scan().found] == [{}]


def test_a_blob_that_is_not_all_there_is_told(ollama: Ollama) -> None:
    """A pull was interrupted, or somebody cleaned up."""
    for name, change in (
        ("short", lambda blob: blob.write_bytes(GGUF[:9])),
        ("gone", lambda blob: blob.unlink()),
    ):
        content = GGUF + name.encode()
        ollama.add(f"{HOST}/library/{name}/latest", content)
        change(ollama.root / "blobs" / ollama.blob(content).replace(":", "-"))
    assert names(ollama.scan()) == []
    assert f"needs {len(GGUF) + 5} bytes of sha256-" in reasons(ollama.scan())
    assert "needs sha256-" in reasons(ollama.scan())
    assert "which cannot be used" in reasons(ollama.scan())


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../etc/passwd",
        "sha256-" + "../" * 21 + "a",
        "/etc/passwd",
        "../blobs/sha256-" + "a" * 64,
        "sha256:" + "a" * 63 + "\0",
        "sha256:" + "a" * 64 + "/../x",
        "sha256:" + "a" * 64 + "\n",
        "C:\\Windows\\win.ini",
        "sha512:" + "a" * 64,
        "",
    ],
)
def test_only_a_digest_names_a_file(ollama: Ollama, digest: str) -> None:
    """The oldest way into Ollama was another."""
    ollama.write(TAG, {"layers": [{"mediaType": MODEL, "digest": digest, "size": 1}]})
    assert names(ollama.scan()) == []
    assert "which is no SHA-256 digest" in reasons(ollama.scan())


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("{", "is no manifest"),
        ("[]", "is no manifest"),
        ("[" * 10**5, "is no manifest"),
        (DEEP.decode(), "is no manifest"),
        ('{"layers": [{"digest": 3}]}', "is no manifest"),
        ('{"layers": []}', "names no GGUF files, not one"),
        (" " * (2**20 + 1), "is longer than 1048576 bytes"),
    ],
)
def test_a_manifest_that_is_none_is_told(ollama: Ollama, manifest: str, reason: str) -> None:
    """And nothing else suffers."""
    ollama.write(TAG, manifest)
    ollama.add(f"{HOST}/library/good/latest")
    assert names(ollama.scan()) == ["ollama/good:latest"]
    assert reason in reasons(ollama.scan())


def test_a_model_that_is_half_an_adapter_is_told(ollama: Ollama) -> None:
    """Without it, it would be another model."""
    adapter = {"mediaType": "application/vnd.ollama.image.adapter", "digest": ollama.blob(b"lora"), "size": 4}
    ollama.write(TAG, {"layers": [ollama.layer(MODEL, GGUF), adapter]})
    assert "needs an adapter" in reasons(ollama.scan())


@pytest.mark.parametrize("inside", ["blobs", "manifests", f"manifests/{TAG}"])
def test_a_link_out_of_the_store_is_refused(ollama: Ollama, tmp_path: Path, inside: str) -> None:
    """Wherever it leads: what is there would otherwise be a model."""
    ollama.add(TAG)
    outside = tmp_path / "outside"
    (ollama.root / inside).rename(outside)
    (ollama.root / inside).symlink_to(outside)
    assert names(ollama.scan()) == []
    assert f"leads out of the store, to {outside}" in reasons(ollama.scan())


def test_a_store_that_is_elsewhere_as_a_whole_is_fine(ollama: Ollama, tmp_path: Path) -> None:
    """Disks are full, and people link folders."""
    ollama.add(TAG)
    ollama.root.rename(tmp_path / "elsewhere")
    ollama.root.symlink_to(tmp_path / "elsewhere")
    assert names(ollama.scan()) == ["ollama/llama3.2:3b"]
