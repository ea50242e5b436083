"""macOS: the background band, which has efficiency cores, low clocks and the disk last (setpriority(2)).

Only for what is to save energy: there is no band that makes way for others and is as fast as ever alone, and
`nice` cannot be taken back. What a GPU computes is not moved. Tested with recorded calls only; never run
there.
"""

import ctypes
from collections.abc import Callable

from pilotlight.worker.priority import Priority

PROCESS = 4
"""PRIO_DARWIN_PROCESS."""

BACKGROUND = 0x1000
"""PRIO_DARWIN_BG; 0 ends it."""


class Mac:
    """Owns nothing: what a process is stands in the system. `setpriority` is that of the system's library."""

    def __init__(self, setpriority: Callable[[int, int, int], int]) -> None:
        self._setpriority = setpriority

    def set(self, pid: int, priority: Priority) -> None:
        """See `priority.Scheduling`."""
        self._setpriority(PROCESS, pid, BACKGROUND if priority is Priority.ECO else 0)


def setpriority() -> Callable[[int, int, int], int]:
    """The system's. Raises `OSError` where it has another library."""
    call: Callable[[int, int, int], int] = ctypes.CDLL("/usr/lib/libSystem.dylib").setpriority
    return call
