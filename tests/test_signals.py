"""Signals, and what Windows has in their place: its loop, its flags and its exit codes are stood in for."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from pilotlight import signals
from pilotlight.cli import session
from pilotlight.core import Model
from pilotlight.signals import CRASHES, ENDING, RELOADING, Death, death_of, hearing
from pilotlight.store import pull
from pilotlight.store.events import Job
from pilotlight.store.smoke import Smoke
from pilotlight.store.store import Store
from pilotlight.worker import handle
from resolving import resolve


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_windows_hears_signals_without_handlers_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop has none. Afterwards they are heard by whom they were heard before."""
    loop = type(asyncio.get_running_loop())
    monkeypatch.setattr(loop, "add_signal_handler", asyncio.AbstractEventLoop.add_signal_handler)
    numbers = (*ENDING, *RELOADING)
    before = [signal.getsignal(number) for number in numbers]
    with monkeypatch.context() as windows:
        windows.setattr(sys, "platform", "win32")
        opened = hearing(*numbers)
    with opened as heard:
        for number in reversed(numbers):
            os.kill(os.getpid(), number)
            assert await anext(heard) is number
    assert [signal.getsignal(number) for number in numbers] == before


async def test_ctrl_c_is_for_nobody_whom_we_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are given the flag that Windows knows, and only Windows takes."""
    for room in (handle, pull, session):
        monkeypatch.setattr(room, "NEW_GROUP", 0x200)
    store = Store(tmp_path)
    puller = pull.Puller(store, Smoke(None), Model)  # type: ignore[arg-type]  # it comes to no test
    with pytest.raises(ValueError, match="creationflags"):
        await handle.Worker.spawn(Model("echo", tmp_path, runtime="echo"))
    with pytest.raises(ValueError, match="creationflags"):
        await puller.pull(Job("owner/name", "", str(tmp_path), stall_s=1.0, retry_s=0.0), lambda _: None)
    with pytest.raises(ValueError, match="creationflags"):
        session._start(resolve(tmp_path), None)


def test_what_windows_lacks_is_left_out() -> None:
    """And what it alone has is not missed elsewhere."""
    assert signals._known("SIGTERM", "SIGNOSUCH", "SIGINT") == (signal.SIGTERM, signal.SIGINT)
    assert {signal.SIGTERM, signal.SIGINT} <= set(ENDING)


@pytest.mark.parametrize(
    ("code", "death"),
    [
        (0xC0000005, Death("exception 0xC0000005", True)),
        (0xC000001D, Death("exception 0xC000001D", True)),
        (0xC0000409, Death("exception 0xC0000409", True)),
        (3, Death("SIGABRT", True)),
        (0xC000013A, None),
        (0, None),
        (1, None),
    ],
)
def test_windows_tells_crashes_by_exit_codes(
    code: int, death: Death | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Access violation, illegal instruction, fast fail, abort(); not Ctrl-C, nor what was ended by others."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert death_of(code) == death


def test_elsewhere_a_signal_tells() -> None:
    """A process may exit with any number by itself."""
    assert (death_of(0), death_of(3)) == (None, None)
    assert death_of(-signal.SIGKILL) == Death("SIGKILL", False)
    assert all(death_of(-number) == Death(number.name, True) for number in CRASHES)
