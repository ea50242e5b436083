"""What models cost, through the whole daemon."""

import json
import shutil
from pathlib import Path

import pytest

from serving import Daemon, serving, table


def test_a_model_says_what_it_costs_once_it_was_loaded(shared: Daemon) -> None:
    """Estimated, and measured right after the load; it holds about that."""
    shared.post("tiny", max_tokens=1)
    model = shared.model("tiny")
    cost = model["cost"]
    assert cost["measured"] == cost["private"] + cost["shared"]
    assert cost["measured"] == pytest.approx(model["bytes_resident"], rel=0.2)
    assert cost["estimated"] == pytest.approx(cost["measured"], rel=0.3)
    assert cost["measured"] <= cost["at_most"]


def test_what_nobody_asked_for_is_not_looked_at(tmp_path: Path, tiny_gguf: Path) -> None:
    """A list of models reads no file."""
    with serving(tmp_path, models=table("tiny", tiny_gguf)) as daemon:
        assert daemon.model("tiny")["cost"] is None


def test_a_measurement_outlives_the_daemon(tmp_path: Path, tiny_gguf: Path) -> None:
    """The next one knows the cost before it loads the model, and refuses a file that has become hostile."""
    path = shutil.copy(tiny_gguf, tmp_path / "model.gguf")
    with serving(tmp_path, models=table("tiny", path)) as daemon:
        daemon.post("tiny", max_tokens=1)
        file = daemon.state_dir / "costs.json"
        (measured,) = json.loads(file.read_text())["measured"].values()
        assert measured["private"] == daemon.model("tiny")["cost"]["private"]
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
    with serving(tmp_path, models=table("tiny", path)) as daemon:
        error = daemon.post("tiny").json()["error"]
        assert error["message"].startswith("tiny: model.gguf: 18446744073709551615 tensors, more than")
        assert daemon.model("tiny")["cost"] is None


def test_a_model_keeps_to_its_own_cap(tmp_path: Path, tiny_gguf: Path) -> None:
    """A context that was set and takes more is refused before anything is loaded, with the numbers."""
    models = table("short", tiny_gguf, memory="64MiB") + table(
        "long", tiny_gguf, memory="64MiB", context=2**20
    )
    with serving(tmp_path, models=models) as daemon:
        assert daemon.post("short", max_tokens=1).status_code == 200
        cost = daemon.model("short")["cost"]
        foreseen = cost["at_most"] - (cost["measured"] - cost["estimated"])
        assert foreseen <= 64 * 2**20, "a process is as big as it is on this machine; the rest is arithmetic"
        refused = daemon.post("long", max_tokens=1)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (400, "model_does_not_fit", "model")
        assert "with a context of 1048576, and may take 64 MiB (memory in its [[model]]" in error["message"]
        assert ": a context of" in error["message"]
        assert daemon.model("long")["state"] == "stopped"


def test_a_daemon_judges_models_before_they_are_loaded(tmp_path: Path, tiny_gguf: Path) -> None:
    """By its own settings, as the command does; what is no model is a 400 with the same words."""
    with serving(tmp_path, models=table("short", tiny_gguf, context=1024)) as daemon:
        verdict = daemon.admin("models/fit", model="short").json()
        assert (verdict["context"], verdict["fits"]) == (1024, True)
        asked = daemon.admin("models/fit", model=str(tiny_gguf), context=2048, within="1MB").json()
        assert (asked["context"], asked["fits"], asked["machine"]["bytes_available"]) == (2048, False, 10**6)
        unknown = daemon.admin("models/fit", model="shor")
        error = unknown.json()["error"]
        assert (unknown.status_code, error["param"]) == (400, "model")
        assert error["message"] == "no model is named 'shor'; did you mean 'short'?"
        assert daemon.admin("models/fit", model="--help").status_code == 400
        assert daemon.model("short")["state"] == "stopped"
