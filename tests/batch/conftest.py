"""What is alike in all tests of batches."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from fake_inference import FakeInference
from owner import Owner, Start


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A daemon's batches, on the same state directory each time; they are let go when the block ends."""

    @asynccontextmanager
    async def start(
        inference: FakeInference | None = None, max_line_bytes: int = 4096
    ) -> AsyncIterator[Owner]:
        owner = Owner(tmp_path, inference or FakeInference(), max_line_bytes)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(owner.batches.run)
            await anyio.wait_all_tasks_blocked()
            yield owner
            owner.batches.stop()
        owner.batches.release()

    return start
