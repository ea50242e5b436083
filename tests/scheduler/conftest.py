"""What is alike in all tests of the scheduler."""

import pytest
from hypothesis import settings

# Times tell nothing on a busy machine, and no files are left behind.
settings.register_profile("quiet", deadline=None, database=None)
settings.load_profile("quiet")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
