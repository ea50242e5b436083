"""A bus that is the system's for the tests that want one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address."""
    pytest.importorskip("jeepney")
    if shutil.which("dbus-daemon") is None:
        pytest.skip("there is no dbus-daemon")
    import desktop_bus

    with desktop_bus.bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address
