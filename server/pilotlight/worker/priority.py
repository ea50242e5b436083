"""How much of a worker the system is to make, beside other programs: less while it only has background work.

A file per platform, imported when it is needed and no other one. The daemon says it of its workers from
outside, between two messages: a worker that computes has no time to hear of it.
"""

import sys
from enum import StrEnum
from functools import cache
from typing import Protocol


class Priority(StrEnum):
    """What a process is to the system."""

    NORMAL = "normal"
    LOW = "low"
    """Other programs go first; alone it is as fast as ever."""
    ECO = "eco"
    """And it is to take little energy, however slow that makes it."""


class Scheduling(Protocol):
    """A system's way to set it."""

    def set(self, pid: int, priority: Priority) -> None:
        """For the process of ours and all its threads. Nothing to do for one that has ended."""


class Fixed:
    """A system that we know nothing of, or that lets nobody set it."""

    def set(self, pid: int, priority: Priority) -> None:
        """Nothing."""


@cache
def scheduling() -> Scheduling:
    """This system's."""
    platform: str = sys.platform
    if platform == "linux":
        from pilotlight.worker.priority_linux import linux

        return linux()
    if platform == "darwin":
        from pilotlight.worker.priority_macos import Mac, setpriority

        return Mac(setpriority())
    if platform == "win32":
        from pilotlight.worker.priority_windows import SystemCalls, Windows

        return Windows(SystemCalls())
    return Fixed()
