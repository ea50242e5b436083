"""Daemons for stock clients, and the npm package of one of them."""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from serving import Daemon, echo, serving, table

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[Daemon]:
    """A daemon with good models, one that cannot be loaded, and one whose worker dies as it speaks."""
    folder = tmp_path_factory.mktemp("served")
    models = echo(folder) + echo(folder, "slow", tokens_per_s=20) + table("tiny", tiny_gguf)
    models += echo(folder, "broken", load_error="the weights are sour")
    models += echo(folder, "dying", die_after_tokens=5)
    with serving(folder, models=models) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon in which nobody may wait, not even for the model to be loaded."""
    folder = tmp_path_factory.mktemp("full")
    with serving(folder, models="[server]\nqueue = 0\n" + echo(folder)) as daemon:
        yield daemon


def tool(name: str) -> str:
    """Of node: the machine's own, else the one that pip has brought, beside this Python."""
    return shutil.which(name) or str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="session")
def node_package() -> Path:
    """A folder in which node finds the packages of node/package.json; installed once per user and version."""
    wanted = (NODE / "package.json").read_bytes()
    cache = platformdirs.user_cache_path("pilotlight-tests", ensure_exists=True)
    folder = cache / f"node-{hashlib.sha256(wanted).hexdigest()[:12]}"
    # Test processes run in parallel: one installs, the others wait for it.
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _install(wanted, folder)
    return folder


def _install(package: bytes, folder: Path) -> None:
    """All or nothing."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / "package.json").write_bytes(package)
    command = [tool("npm"), "install", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(command, cwd=partial, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stderr}"
    partial.rename(folder)


@pytest.fixture(scope="session")
def seen(node_package: Path, served: Daemon, full: Daemon) -> dict[str, Any]:
    """What the scenarios of node/client.mjs saw, by name."""
    # From stdin, so that the packages are looked for in the working directory.
    command = [tool("node"), "--input-type=module", "-", served.url, full.url]
    script = (NODE / "client.mjs").read_text()
    done = subprocess.run(command, cwd=node_package, input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
