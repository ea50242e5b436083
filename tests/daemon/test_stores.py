"""Models of other programs, served where they are by a real daemon."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pilotlight
from gguf_factory import write_tiny_gguf
from serving import Daemon, until
from store_factory import HuggingFace, Ollama

BUILTIN = Path(pilotlight.__file__).with_name("builtin")

Serve = Callable[..., Daemon]


class Stores:
    """What is on the machine beside Pilotlight, and the variables that say where."""

    def __init__(self, folder: Path) -> None:
        self.hub = HuggingFace(folder / "hub")
        self.ollama = Ollama(folder / "ollama")
        self.environ = {
            "PILOTLIGHT_STORES": "huggingface,ollama",
            "HF_HUB_CACHE": str(self.hub.cache),
            "OLLAMA_MODELS": str(self.ollama.root),
        }

    def add_tag(self, name: str, gguf: Path, **fields: Any) -> None:
        self.ollama.add(f"ollama.ai/library/{name}", gguf.read_bytes(), **fields)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def listed(daemon: Daemon) -> dict[str, dict[str, Any]]:
    models = daemon.get("/v1/models").json()["data"]
    return {model["id"]: model for model in models if model["store"] != "config"}


def test_models_of_every_kind_answer_where_they_are(serve: Serve, stores: Stores, tiny_gguf: Path) -> None:
    """A blob without a suffix, a folder of links to blobs."""
    stores.add_tag("tiny/latest", tiny_gguf, params={"temperature": 0})
    for name in ("pilot-onnx", "pilot-mlx"):
        files = {file.name: file.read_bytes() for file in (BUILTIN / name).iterdir()}
        stores.hub.add(f"pilotlight/{name}", files)
    daemon = serve(environ=stores.environ)
    for name in ("ollama/tiny:latest", "pilotlight/pilot-onnx", "pilotlight/pilot-mlx"):
        answer = daemon.post(name, max_tokens=4, ignore_eos=True).json()
        assert (answer.get("model"), answer) == (name, answer)
        assert answer["usage"]["completion_tokens"] == 4


def test_a_model_that_comes_while_we_run_is_found_when_it_is_asked_for(
    serve: Serve, stores: Stores, tiny_gguf: Path
) -> None:
    """Nobody told the daemon; and once it is gone, it is a 404, and its worker ends."""
    daemon = serve(environ=stores.environ)
    missing = daemon.post("ollama/tiny:latest")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    stores.add_tag("tiny/latest", tiny_gguf)
    assert daemon.post("ollama/tiny:latest", max_tokens=2).status_code == 200
    assert listed(daemon)["ollama/tiny:latest"]["bytes_disk"] == tiny_gguf.stat().st_size
    (stores.ollama.root / "manifests" / "ollama.ai" / "library" / "tiny" / "latest").unlink()
    assert listed(daemon) == {}
    assert daemon.post("ollama/tiny:latest").status_code == 404
    until(lambda: len(daemon.processes()) == 1)


def test_one_model_with_two_names_has_one_worker(serve: Serve, stores: Stores, tiny_gguf: Path) -> None:
    """It was downloaded twice, by two programs."""
    stores.add_tag("tiny/latest", tiny_gguf)
    stores.hub.add("me/tiny-GGUF", {"tiny-Q8_0.gguf": tiny_gguf.read_bytes()})
    daemon = serve(environ=stores.environ)
    answers = [daemon.post(name, max_tokens=2).json() for name in ("ollama/tiny:latest", "me/tiny-GGUF:Q8_0")]
    assert [answer["model"] for answer in answers] == ["me/tiny-GGUF:Q8_0"] * 2
    assert listed(daemon)["me/tiny-GGUF:Q8_0"]["aliases"] == ["ollama/tiny:latest"]
    assert len(daemon.processes()) == 2


def test_nothing_is_looked_at_before_somebody_asks(serve: Serve, stores: Stores, tiny_gguf: Path) -> None:
    """A start costs no look into the stores, and neither do known names."""
    stores.add_tag("tiny/latest", tiny_gguf)
    daemon = serve(environ=stores.environ)
    assert daemon.post("pilot", max_tokens=2).status_code == 200
    assert "looked for models" not in daemon.log
    assert "ollama/tiny:latest" in listed(daemon)
    assert daemon.log.count("looked for models") == 1
    assert "ollama/tiny:latest" in listed(daemon)
    assert daemon.log.count("looked for models") == 1


def test_a_found_model_can_be_loaded_at_start(serve: Serve, stores: Stores, tiny_gguf: Path) -> None:
    """By the name it has in its store."""
    stores.add_tag("tiny/latest", tiny_gguf)
    daemon = serve("--model", "ollama/tiny:latest", environ=stores.environ)
    until(lambda: daemon.model("ollama/tiny:latest")["state"] == "ready")
    assert list(listed(daemon)) == ["ollama/tiny:latest"]


def test_a_found_model_that_has_moved_is_found_again(
    serve: Serve, stores: Stores, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Its store has another version, and the file is gone: one load fails, and nobody asks for the list."""
    stores.add_tag("tiny/latest", tiny_gguf)
    daemon = serve(environ=stores.environ)
    listed(daemon)
    (old,) = (stores.ollama.root / "blobs").iterdir()
    stores.add_tag("tiny/latest", write_tiny_gguf(tmp_path / "new.gguf", seed=1))
    old.unlink()
    refused = daemon.post("ollama/tiny:latest", max_tokens=2)
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "worker_failed")
    until(lambda: daemon.post("ollama/tiny:latest", max_tokens=2).status_code == 200)


def test_stores_that_are_switched_off_are_left_alone(serve: Serve, stores: Stores, tiny_gguf: Path) -> None:
    """Each by itself."""
    stores.add_tag("tiny/latest", tiny_gguf)
    stores.hub.add("me/tiny-GGUF", {"tiny-Q8_0.gguf": tiny_gguf.read_bytes() + b"\0"})
    daemon = serve(environ=stores.environ | {"PILOTLIGHT_STORES": "huggingface"})
    assert list(listed(daemon)) == ["me/tiny-GGUF:Q8_0"]
