"""Which key the commands send, and to whom."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon

from pilotlight.registry.discovery import Discovery
from pilotlight.registry.keys import ensure_admin_key

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def admin_key(tmp_path: Path) -> str:
    """That of the state directory of `run`."""
    (tmp_path / "state").mkdir(mode=0o700)
    return ensure_admin_key(tmp_path / "state")


def test_the_daemon_of_our_state_directory_gets_the_admin_key(
    run: Run, daemon: FakeDaemon, admin_key: str, tmp_path: Path
) -> None:
    """Found by its file, or named."""
    Discovery(tmp_path / "state").write(daemon.url)
    for arguments in (("load", "pilot"), ("load", "pilot", "--host", "localhost", "--port", daemon.port)):
        assert run(*arguments).returncode == 0
    assert daemon.keys == {f"Bearer {admin_key}"}


def test_so_does_an_older_daemon_of_it(run: Run, daemon: FakeDaemon, admin_key: str, tmp_path: Path) -> None:
    """Another one that has the same state directory came later, and still lives."""
    discovery = Discovery(tmp_path / "state")
    discovery.write(daemon.url)
    file = tmp_path / "state" / "daemon.json"
    older = json.loads(file.read_text())
    discovery.write("http://127.0.0.1:1")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"before": [older]}))
    assert run("load", "pilot", "--port", daemon.port).returncode == 0
    assert daemon.keys == {f"Bearer {admin_key}"}


def test_a_daemon_of_another_machine_is_not_looked_for_here(
    run: Run, daemon: FakeDaemon, admin_key: str, tmp_path: Path
) -> None:
    """They share a home: who has its port here is somebody else."""
    Discovery(tmp_path / "state").write(daemon.url)
    file = tmp_path / "state" / "daemon.json"
    place = {"machine": "another", "boot": "another", "pids": "another"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"place": place}))
    assert run("ps").returncode == 1
    assert daemon.keys == set()


def test_no_other_program_gets_the_admin_key(run: Run, daemon: FakeDaemon, admin_key: str) -> None:
    """Whoever listens where a daemon is looked for."""
    run("ps", "--port", daemon.port)
    run("ps", PILOTLIGHT_PORT=daemon.port)
    assert daemon.keys == {None}


def test_a_configured_key_is_sent_to_the_configured_daemon(run: Run, daemon: FakeDaemon) -> None:
    """It may be on another machine."""
    run("ps", "--port", daemon.port, PILOTLIGHT_API_KEYS="a-key-for-the-person,another-for-an-app")
    assert daemon.keys == {"Bearer a-key-for-the-person"}
