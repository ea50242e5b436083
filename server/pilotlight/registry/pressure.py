"""The machine's memory pressure, as events: the system tells when it begins, and nobody looks otherwise.

A file per platform, imported when it is needed and no other one.
"""

import asyncio
import math
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import anyio

CALM_S = 10.0
"""Linux: without another word for so long it is over. Elsewhere it is looked so often whether it is."""


class Level(IntEnum):
    """How short memory is."""

    NONE = 0
    WARN = 1
    """Something waits for memory now and then."""
    CRITICAL = 2
    """Everything does: the machine is about to freeze."""


class System(Protocol):
    """One that tells when memory gets short, and can be asked whether it still is."""

    def arm(self, hear: Callable[[], None]) -> None:
        """Have it called, from any thread, when memory gets short; again after it was, and is no more."""

    def level(self) -> Level:
        """Now; does not block."""

    def close(self) -> None:
        """Nothing is called any more."""


async def listen(tell: Callable[[Level], None]) -> None:
    """Tell every event until cancelled, and `NONE` when it is over; returns at once where there are none."""
    platform: str = sys.platform
    if platform == "linux":
        from pilotlight.registry import pressure_linux

        await pressure_linux.listen(tell)
    elif platform == "darwin":
        from pilotlight.registry import pressure_macos

        await follow(pressure_macos.Mac(pressure_macos.library()), tell)
    elif platform == "win32":
        from pilotlight.registry import pressure_windows

        await follow(pressure_windows.Windows(pressure_windows.library()), tell)


async def follow(system: System, tell: Callable[[Level], None], calm_s: float = CALM_S) -> None:
    """The same for a system that does not repeat itself: while memory is short, it is told every `calm_s`."""
    words, heard = anyio.create_memory_object_stream[None](math.inf)
    loop = asyncio.get_running_loop()

    def hear() -> None:
        loop.call_soon_threadsafe(words.send_nowait, None)

    with words, heard:
        system.arm(hear)
        try:
            level = Level.NONE
            while True:
                with anyio.move_on_after(calm_s if level else math.inf):
                    await heard.receive()
                before, level = level, system.level()
                if before or level:
                    tell(level)
                if not level:
                    system.arm(hear)
        finally:
            system.close()
