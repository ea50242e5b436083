"""Signals, where systems differ: which there are, how they are heard, who is spared them, who died of one.

Knows nothing of what is done about them. What is said of Windows here was never run there.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

import anyio
from msgspec import Struct


def _known(*names: str) -> tuple[signal.Signals, ...]:
    """Those that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


ENDING = _known("SIGTERM", "SIGINT", "SIGBREAK")
"""Windows sends SIGBREAK when its console is closed, too."""

RELOADING = _known("SIGHUP")

CRASHES = frozenset(_known("SIGSEGV", "SIGILL", "SIGABRT", "SIGFPE", "SIGBUS"))
"""What a process gets for what its own native code did; SIGKILL is somebody else's doing."""

NEW_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""The `creationflags` of a process that Ctrl-C in our terminal is not for: Windows knows no sessions."""

FIRST_FAULT, CONTROL_C = 0xC0000000, 0xC000013A
"""NTSTATUS: from the first one on they are errors, of which the second one is no fault."""

ABORTED = 3
"""What Windows' `abort` exits with."""


def hearing(*numbers: signal.Signals) -> AbstractContextManager[AsyncIterator[signal.Signals]]:
    """These signals as they come, while it is open; in the main thread only."""
    platform: str = sys.platform
    return _handling(numbers) if platform == "win32" else anyio.open_signal_receiver(*numbers)


@contextmanager
def _handling(numbers: tuple[signal.Signals, ...]) -> Iterator[AsyncIterator[signal.Signals]]:
    """By Python's own handlers: Windows' event loop has no `add_signal_handler`. It is awake when one is to
    run, for it has made itself the one that a signal wakes (`signal.set_wakeup_fd`)."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[signal.Signals] = asyncio.Queue()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, signal.Signals(number))

    async def each() -> AsyncIterator[signal.Signals]:
        while True:
            yield await heard.get()

    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield each()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Terminal:
    """The one we were started in, if any: its end is told by the signal that elsewhere means a reload."""

    def __init__(self) -> None:
        self._was_there = _is_terminal()

    @property
    def is_gone(self) -> bool:
        return self._was_there and not _is_terminal()


def _is_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


class Death(Struct, frozen=True):
    """What a process died of; `is_crash` if that was its own native code."""

    cause: str
    is_crash: bool


def death_of(code: int) -> Death | None:
    """By what a process ended with; None if it went by itself."""
    platform: str = sys.platform
    if platform == "win32":
        return _fault_of(code)
    if code >= 0:
        return None
    return Death(_name_of(-code), -code in CRASHES)


def _fault_of(code: int) -> Death | None:
    """Windows has no signals for it: a number without a sign tells."""
    if code == ABORTED:
        return Death("SIGABRT", is_crash=True)
    is_fault = code >= FIRST_FAULT and code != CONTROL_C
    return Death(f"exception 0x{code:08X}", is_crash=True) if is_fault else None


def _name_of(number: int) -> str:
    """Of a signal: most of those for real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
