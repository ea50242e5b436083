"""A command line in a clean environment."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon, serving


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with serving(FakeDaemon()) as fake:
        yield fake


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """No settings and no daemon of the person who runs the tests; port 1 is nobody's."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PILOTLIGHT_", "XDG_"))
    }
    return clean | {
        "HOME": str(tmp_path),
        "PILOTLIGHT_STATE_DIR": str(tmp_path / "state"),
        "PILOTLIGHT_PORT": "1",
        "TERM": "dumb",
    }


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `pilotlight` with these arguments to its end."""

    def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pilotlight", *arguments]
        return subprocess.run(
            command, input=stdin, env=environ | env, cwd=tmp_path, capture_output=True, text=True, timeout=50
        )

    return run
