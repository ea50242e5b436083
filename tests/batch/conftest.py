"""What is alike in all tests of batches."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
