"""What is alike in all tests of the scheduler."""

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from loop_bench import Bench
from stage import Stage


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def bench(anyio_backend: str) -> AsyncIterator[Bench]:
    """Every worker is stopped in the end."""
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.loop.run)
        yield bench
        await bench.loop.stop_workers()
        tasks.cancel_scope.cancel()
    assert all(worker.is_stopped for worker in bench.loader.workers)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.scheduler.check()
