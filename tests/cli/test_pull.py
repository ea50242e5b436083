"""`pilotlight pull`, `rollback`, `rm` and `prune` without a daemon, and how they use a running one."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_hub import Fault, Hub
from fake_hub import hub as fake_hub
from pilotlight.store.store import Store
from serving import serving

Run = Callable[..., subprocess.CompletedProcess[str]]

REPO, FILE, NAME = "owner/tiny-GGUF", "tiny-F32.gguf", "owner/tiny-GGUF:F32"


@pytest.fixture
def hub(tiny_gguf: Path, environ: dict[str, str], tmp_path: Path) -> Iterator[Hub]:
    """With a real model; what is run in the test pulls from it."""
    with fake_hub() as found:
        found.commit_files(REPO, {FILE: tiny_gguf.read_bytes()})
        environ["HF_ENDPOINT"] = found.url
        environ["HF_HOME"] = str(tmp_path / "hf")
        environ["PILOTLIGHT_STORE_DIR"] = str(tmp_path / "store")
        environ["PILOTLIGHT_DOWNLOAD_RETRY_S"] = "0"
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_pull_needs_no_daemon(hub: Hub, run: Run, store: Store) -> None:
    """It says what it does on stderr, and the outcome on stdout."""
    done = run("pull", REPO)
    assert done.returncode == 0, done.stderr
    (stored,) = store.models()
    assert done.stdout == f"{NAME}: version {stored.version.id} is active\n"
    assert f"{NAME}: testing whether it loads and answers" in done.stderr
    assert "is the newest" in run("pull", NAME).stdout


def test_a_pull_in_json_is_a_line_per_event(hub: Hub, run: Run) -> None:
    """The last one says how it ended."""
    events = [json.loads(line) for line in run("pull", REPO, "--json").stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "resolved",
        "installed",
        "testing",
        "done",
    ]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_failed_pull_is_exit_code_1(hub: Hub, run: Run, arguments: tuple[str, ...]) -> None:
    """With the reason."""
    hub.fail(FILE, Fault("wrong"))
    done = run("pull", REPO, *arguments)
    assert done.returncode == 1
    assert "came with a wrong hash" in (done.stdout if arguments else done.stderr)


def test_a_url_takes_its_hash_as_an_option(hub: Hub, run: Run) -> None:
    """A wrong one is told."""
    (sha,) = hub.repos[REPO]
    done = run("pull", f"{hub.cdn}/{REPO}/{sha}/cdn/{FILE}", "--sha256", "00" * 32)
    assert (done.returncode, "came with a wrong hash" in done.stderr) == (1, True)


def test_what_cannot_be_pulled_is_told(run: Run) -> None:
    """Before anybody is asked."""
    done = run("pull", "nothing")
    assert (done.returncode, done.stderr.startswith("pilotlight: 'nothing' is nothing to pull")) == (1, True)


def test_ctrl_c_keeps_what_has_come(hub: Hub, run: Run, environ: dict[str, str], store: Store) -> None:
    """And says that the next pull goes on."""
    hub.fail(FILE, Fault("pause", 1000))
    command = [sys.executable, "-m", "pilotlight", "pull", REPO, "--json"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while '"progress"' not in process.stdout.readline():
            continue
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (
        130,
        "stopped; what has come is kept, and the same command goes on with it\n",
    )
    assert store.models() == []
    assert run("pull", REPO).returncode == 0
    assert hub.downloads(FILE)[-1]["range"] == "bytes=1000-"


def test_versions_are_managed_without_a_daemon(hub: Hub, run: Run, tiny_gguf: Path, store: Store) -> None:
    """Back, freed and deleted, by the short name too."""
    run("pull", REPO)
    one = store.models()[0].version.id
    hub.commit_files(REPO, {FILE: tiny_gguf.read_bytes() + b"\0" * 32})
    assert "is kept" in run("pull", "tiny:F32").stdout
    assert run("rollback", "tiny:F32").stdout == f"{NAME}: version {one} is active again\n"
    plan = json.loads(run("prune", "--dry-run", "--json").stdout)
    assert (len(plan["removed"]), plan["bytes_freed"] > 0) == (1, True)
    assert run("prune").stdout.endswith(" are free again\n")
    assert json.loads(run("rm", "tiny:F32", "--json").stdout)["model"] == NAME
    done = run("rm", "tiny:F32")
    assert (done.returncode, "no pulled model is named 'tiny:F32'" in done.stderr) == (1, True)


def test_a_model_that_is_not_pulled_cannot_be_chosen(run: Run, tmp_path: Path) -> None:
    """It says how to get it."""
    file = tmp_path / "models.toml"
    file.write_text("[[model]]\nname = 'mine'\nsource = 'owner/tiny-GGUF'")
    done = run("serve", "--config", str(file), "--model", "mine")
    assert (done.returncode, "`pilotlight pull mine` gets it" in done.stderr) == (2, True)


def test_a_running_daemon_does_it(hub: Hub, run: Run, tmp_path: Path, environ: dict[str, Any]) -> None:
    """All of it, where it has its store."""
    models = f"[server]\nstore_dir = {json.dumps(str(tmp_path / 'elsewhere'))}\n"
    hub_of = {key: environ[key] for key in ("HF_ENDPOINT", "HF_HOME")}
    with serving(tmp_path / "daemon", models=models, environ=hub_of) as daemon:
        at = ("--state-dir", str(daemon.state_dir))
        assert "is active" in run("pull", REPO, *at).stdout
        assert "F32" in run("ps", "--json", *at).stdout
        assert "has no previous version" in run("rollback", NAME, *at).stderr
        assert run("prune", *at).stdout == "0.0 MiB are free again\n"
        assert "is deleted" in run("rm", NAME, *at).stdout
        assert daemon.post(NAME).status_code == 404
    assert not (tmp_path / "store").exists()
