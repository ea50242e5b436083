"""What the tests with real processes share: a tiny GGUF, daemons of their own, and one to read from."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from gguf_factory import write_tiny_gguf
from serving import Daemon, serving, table

# A background job of a shell ignores Ctrl-C, and whatever it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Some build machines set it, and then each of a thousand processes compiles our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Who reaches the registries through a proxy does not reach our daemons through it.
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))

# Times tell nothing on a busy machine, and no files are left behind.
settings.register_profile("quiet", deadline=None, database=None)
settings.load_profile("quiet")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model that loads in no time and says nonsense; not to be changed."""
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start daemons that end, and are checked, with the test; see `serving`."""
    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(serving(tmp_path, *arguments, **settings))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[Daemon]:
    """One daemon for all tests that only ask: `tiny` and the built-in model."""
    folder = tmp_path_factory.mktemp("shared")
    with serving(folder, models=table("tiny", tiny_gguf)) as daemon:
        yield daemon
