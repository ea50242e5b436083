"""What is alike in all tests of the worker."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from talking import Spawn

from pilotlight.core import Model
from pilotlight.worker.handle import Worker


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def workers(anyio_backend: str) -> AsyncIterator[list[Worker]]:
    """Whatever a test starts is stopped, and is gone then."""
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        await worker.stop()
    assert not any(psutil.pid_exists(worker.pid) for worker in workers)


@pytest.fixture
def spawn(tmp_path: Path, workers: list[Worker]) -> Spawn:
    """A worker of an echo model that behaves like this, not loaded yet."""

    async def spawn(**knobs: object) -> Worker:
        path = tmp_path / "echo.toml"
        path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in knobs.items()))
        workers.append(
            await Worker.spawn(Model("echo", path, runtime="echo", context=9, parallel=3, threads=2))
        )
        return workers[-1]

    return spawn


@pytest.fixture
def stand_in(workers: list[Worker]) -> Spawn:
    """A child that runs this code instead of a worker's."""

    async def stand_in(code: str) -> Worker:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=pipe, stdout=pipe, stderr=pipe
        )
        workers.append(Worker(Model("stand-in", Path("/none")), process))
        return workers[-1]

    return stand_in


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
