"""What is alike in all tests of the registry."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
