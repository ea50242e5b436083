"""Files and names that are no model: a clear error for who asks, and nothing for anybody else."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gguf_factory import write_tiny_gguf
from serving import Daemon, serving, table

MAKERS = {
    "empty": lambda good: b"",
    "text": lambda good: b"Not a model, but a shopping list: bread, milk.\n",
    "magic-only": lambda good: good[:4],
    "header-only": lambda good: good[:1000],
    "truncated": lambda good: good[: len(good) // 2],
    "noise": lambda good: good[:8] + np.random.default_rng(1).bytes(len(good) - 8),
    "wrong-version": lambda good: good[:4] + b"\xff" + good[5:],
    "huge-counts": lambda good: good[:8] + b"\xff" * 16 + good[24:],
    "flipped": lambda good: good[:200] + bytes(byte ^ 0xFF for byte in good[200:400]) + good[400:],
}
"""What is wrong with each file, made from the bytes of a good one."""

BAD = [*MAKERS, "folder", "missing", "loop"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One that is to serve all of them, and a good one."""
    folder = tmp_path_factory.mktemp("bad")
    good = write_tiny_gguf(folder / "good.gguf")
    for name, make in MAKERS.items():
        (folder / name).write_bytes(make(good.read_bytes()))
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    models = "".join(table(name, folder / name) for name in BAD) + table("good", good)
    with serving(folder / "daemon", models=models) as daemon:
        yield daemon


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_model_is_an_error_for_who_asks(daemon: Daemon, name: str) -> None:
    """It names the model and says more than "failed"; the others are served as before, and as fast."""
    answer = daemon.post(name)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["source"]) == (500, "worker_failed", "worker")
    assert error["message"].startswith(f"{name}: ")
    assert "no reason given" not in error["message"]
    assert daemon.model(name)["state"] == "failed"
    assert daemon.post("good", max_tokens=3).json()["usage"]["completion_tokens"] == 3
    assert not (daemon.state_dir / "ladder.json").exists(), "a damaged file says nothing about this machine"


def test_a_stream_from_no_model_is_an_error_status(daemon: Daemon) -> None:
    """Nothing was sent yet, so it need not be an event."""
    answer = daemon.post("truncated", stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "worker_failed")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("empty", "0 bytes"),
        ("text", "not a GGUF"),
        ("folder", "not a file; a model is a GGUF file, or a folder with a genai_config.json"),
        ("missing", "does not exist"),
        ("loop", "does not exist"),
    ],
)
def test_the_error_says_what_the_file_is(daemon: Daemon, name: str, complaint: str) -> None:
    """In words for the person who configured it."""
    assert complaint in daemon.post(name).json()["error"]["message"]


def test_a_damaged_file_given_at_start_does_not_stop_it(tmp_path: Path, tiny_gguf: Path) -> None:
    """The daemon serves everything else."""
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny_gguf.read_bytes()[:5000])
    with serving(tmp_path / "daemon", "--model", str(damaged), models=table("good", tiny_gguf)) as daemon:
        assert daemon.post("good", max_tokens=1).status_code == 200
        assert daemon.post("damaged").status_code == 500


def test_an_unknown_model_is_told_the_nearest_name(shared: Daemon) -> None:
    """Before anything is loaded."""
    answer = shared.post("tinny")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "did you mean 'tiny'?" in error["message"]
