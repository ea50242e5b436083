"""`pilotlight ls` and `pilotlight show`, with a daemon and without one."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from fake_daemon import FakeDaemon

from store_factory import GGUF, HuggingFace, Ollama

Run = Callable[..., subprocess.CompletedProcess[str]]

LONG = "unsloth/A-Model-With-A-Rather-Long-Name-And-More-Of-It-Still-Instruct-GGUF"


def prepare(home: Path) -> None:
    """Three models, of which two are one."""
    HuggingFace(home / ".cache" / "huggingface" / "hub").add(LONG, {"[bold]-Q4_0.gguf": GGUF})
    store = Ollama(home / ".ollama" / "models")
    store.add("ollama.ai/library/m/latest")
    store.add("ollama.ai/library/other/latest", GGUF * 2**16)


def test_all_models_are_listed_without_a_daemon(run: Run, tmp_path: Path) -> None:
    """With what they are called, their runtime, size and where they are; nothing is cut off in a pipe."""
    prepare(tmp_path)
    rows = {row.split()[0]: row.split()[1:] for row in run("ls").stdout.strip().splitlines()[2:]}
    assert rows["pilot"][:6] == ["llamacpp", "3", "MiB", "config", "stopped"]
    assert rows["ollama/other:latest"] == ["llamacpp", "2", "MiB", "ollama", "stopped"]
    assert rows[f"{LONG}:[bold]-Q4_0"] == [
        "llamacpp",
        "0",
        "MiB",
        "huggingface",
        "stopped",
        "ollama/m:latest",
    ]


def test_the_list_as_json_has_everything(run: Run, tmp_path: Path) -> None:
    """For scripts: also where the files are."""
    prepare(tmp_path)
    listed = {model["id"]: model for model in json.loads(run("ls", "--json").stdout)["models"]}
    assert listed["ollama/other:latest"]["bytes_disk"] == len(GGUF) * 2**16
    assert listed[f"{LONG}:[bold]-Q4_0"]["aliases"] == ["ollama/m:latest"]
    assert Path(listed[f"{LONG}:[bold]-Q4_0"]["path"]).read_bytes() == GGUF


def test_what_cannot_be_used_is_counted(run: Run, tmp_path: Path) -> None:
    """And told in full to a script."""
    Ollama(tmp_path / ".ollama" / "models").write("ollama.ai/library/m/latest", "{}")
    assert run("ls").stdout.splitlines()[-1] == "1 more cannot be used; `pilotlight doctor` says why"
    (skipped,) = json.loads(run("ls", "--json").stdout)["not_used"]
    assert (skipped["store"], skipped["reason"]) == ("ollama", "names no GGUF files, not one")


def test_what_is_to_be_pulled_is_told(run: Run, tmp_path: Path) -> None:
    """It is configured, and nobody could ask it."""
    (tmp_path / "models.toml").write_text("[[model]]\nname = 'mine'\nsource = 'owner/tiny-GGUF'")
    config = ("--config", "models.toml")
    told = "mine is not on this machine yet; `pilotlight pull mine` gets it"
    assert told in run("ls", *config).stdout.splitlines()
    assert json.loads(run("ls", "--json", *config).stdout)["not_pulled"] == ["mine"]
    assert told in run("show", "mine", *config).stderr


def test_a_running_daemon_says_what_there_is(run: Run, daemon: FakeDaemon) -> None:
    """And what is loaded: it may have another configuration."""
    daemon.models[0] |= {"store": "config", "bytes_disk": 2**21, "aliases": ["x", "y"]}
    last = run("ls", "--port", daemon.port).stdout.strip().splitlines()[-1]
    assert last.split() == ["pilot", "llamacpp", "2", "MiB", "config", "ready", "x,", "y"]
    listed = json.loads(run("ls", "--json", "--port", daemon.port).stdout)
    assert listed == {"models": daemon.models, "not_used": []}


def test_everything_about_a_model_is_shown(run: Run, tmp_path: Path) -> None:
    """By any of its names."""
    prepare(tmp_path)
    shown = json.loads(run("show", "ollama/m:latest", "--json").stdout)
    assert shown["id"] == f"{LONG}:[bold]-Q4_0"
    assert Path(shown["path"]).read_bytes() == GGUF
    assert (shown["settings"]["sampling"]["temperature"], shown["worker"]) == (0.8, None)
    lines = [line.split(maxsplit=1) for line in run("show", "ollama/m:latest").stdout.splitlines()]
    assert ["path", shown["path"]] in lines
    assert ["settings.sampling.top_k", "40"] in lines
    assert ["aliases", "ollama/m:latest"] in lines


def test_how_a_model_is_loaded_is_shown(run: Run, tmp_path: Path) -> None:
    """Everything its table says about it."""
    settings = (
        "kv_cache_type = 'q8_0/f16'\nmmap = true\nmemory = '1MiB'\nlora = [{path = 'a.gguf', scale = 0.5}]"
    )
    (tmp_path / "models.toml").write_text(f"[[model]]\nname = 'm'\npath = 'm.gguf'\n{settings}")
    shown = run("show", "m", "--config", "models.toml").stdout
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    found = {key: lines[f"settings.{key}"] for key in ("kv_cache_type", "mmap", "gpu_layers", "memory")}
    assert found == {"kv_cache_type": "q8_0/f16", "mmap": "True", "gpu_layers": "-1", "memory": str(2**20)}
    assert lines["settings.lora"] == f"path={tmp_path}/a.gguf scale=0.5 created=0"


def test_a_running_daemon_shows_its_model(run: Run, daemon: FakeDaemon) -> None:
    """As it is now; what its file says of itself cannot move the cursor."""
    daemon.models[0]["description"] = "llama\x1b[2J\n 3B"
    shown = run("show", "pilot", "--port", daemon.port).stdout
    assert "ready" in shown.split()
    assert "description                      llama [2J  3B" in shown.splitlines()


def test_an_unknown_model_is_one_line_with_the_nearest_name(run: Run) -> None:
    """Exit code 1."""
    result = run("show", "pilto")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "pilotlight: no model is named 'pilto'; did you mean 'pilot'?\n"


def test_versions_of_a_pulled_model_are_listed(run: Run, daemon: FakeDaemon) -> None:
    """Below it, those that are kept beside the active one."""
    versions = [("one", "previous"), ("two", "active"), ("three", "failed")]
    daemon.models[0] |= {"store": "config", "bytes_disk": 2**21, "aliases": []}
    daemon.models[0]["versions"] = [
        {"version": version, "state": state, "bytes": 2**20} for version, state in versions
    ]
    rows = [row.split() for row in run("ls", "--port", daemon.port).stdout.strip().splitlines()[-3:]]
    assert rows[0][0] == "pilot"
    assert rows[1:] == [
        [state, "version", version, "1", "MiB"] for version, state in versions if state != "active"
    ]
