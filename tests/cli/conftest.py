"""A command line in a clean environment."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from fake_daemon import FakeDaemon, serving

from prepared import Prepared
from serving import PERSONAL

Run = Callable[..., subprocess.CompletedProcess[str]]

LIMIT_S = 50


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with serving(FakeDaemon()) as fake:
        yield fake


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """No settings and no daemon of the person who runs the tests; port 1 is nobody's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith((*PERSONAL, "XDG_"))}
    return clean | {
        "HOME": str(tmp_path),
        # Else the models of a service that runs here are found, too.
        "OLLAMA_MODELS": str(tmp_path / ".ollama" / "models"),
        "PILOTLIGHT_STATE_DIR": str(tmp_path / "state"),
        "PILOTLIGHT_PORT": "1",
        "TERM": "dumb",
    }


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path) -> Run:
    """Run `pilotlight` with these arguments to its end."""

    def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            given.write(stdin)
            given.seek(0)
            streams = (given.fileno(), out.fileno(), err.fileno())
            code = Prepared(arguments, environ | env, streams, tmp_path).wait(LIMIT_S)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())

    return run


@pytest.fixture
def run_afresh(environ: dict[str, str], tmp_path: Path) -> Run:
    """The same, started as a person does it: nothing is imported yet."""

    def run_afresh(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pilotlight", *arguments],
            stdin=subprocess.DEVNULL,
            env=environ | env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return run_afresh
