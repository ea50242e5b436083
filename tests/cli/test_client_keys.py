"""Which key the commands send, and to whom."""

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


def test_no_other_program_gets_the_admin_key(run: Run, daemon: FakeDaemon, admin_key: str) -> None:
    """Whoever listens where a daemon is looked for."""
    run("ps", "--port", daemon.port)
    run("ps", PILOTLIGHT_PORT=daemon.port)
    assert daemon.keys == {None}


def test_a_configured_key_is_sent_to_the_configured_daemon(run: Run, daemon: FakeDaemon) -> None:
    """It may be on another machine."""
    run("ps", "--port", daemon.port, PILOTLIGHT_API_KEYS="a-key-for-the-person,another-for-an-app")
    assert daemon.keys == {"Bearer a-key-for-the-person"}
