"""macOS: memory pressure from a dispatch source, which the kernel wakes when the level changes.

From Apple's headers; the calls were never made there.
"""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_long, c_size_t, c_ulong, c_void_p
from typing import Any

from pilotlight.registry.pressure import Level

LEVELS = {1: Level.NONE, 2: Level.WARN, 4: Level.CRITICAL}
"""Of kern.memorystatus_vm_pressure_level, and the bits that a source is told of."""


class Mac:
    """`pressure.System`. Owns the dispatch source; `system` is the system's library."""

    def __init__(self, system: Any) -> None:
        self._system = system
        self._system.dispatch_get_global_queue.restype = c_void_p
        self._system.dispatch_get_global_queue.argtypes = (c_long, c_ulong)
        self._system.dispatch_source_create.restype = c_void_p
        self._system.dispatch_source_create.argtypes = (c_void_p, c_ulong, c_ulong, c_void_p)
        self._system.dispatch_source_set_event_handler_f.argtypes = (c_void_p, c_void_p)
        self._system.dispatch_resume.argtypes = (c_void_p,)
        self._system.dispatch_source_cancel.argtypes = (c_void_p,)
        self._source: int | None = None
        self._handler: Any = None

    def arm(self, hear: Callable[[], None]) -> None:
        """Once: it stays so."""
        if self._source is not None:
            return
        kind = ctypes.cast(self._system._dispatch_source_type_memorypressure, c_void_p)
        queue = self._system.dispatch_get_global_queue(0, 0)
        self._source = self._system.dispatch_source_create(kind, 0, sum(LEVELS), queue)
        self._handler = ctypes.CFUNCTYPE(None, c_void_p)(lambda _context: hear())
        self._system.dispatch_source_set_event_handler_f(self._source, self._handler)
        self._system.dispatch_resume(self._source)

    def level(self) -> Level:
        """What is not known is no pressure."""
        number, size = c_int(), c_size_t(ctypes.sizeof(c_int))
        name = b"kern.memorystatus_vm_pressure_level"
        failed = self._system.sysctlbyname(name, byref(number), byref(size), None, c_size_t(0))
        return Level.NONE if failed else LEVELS.get(number.value, Level.NONE)

    def close(self) -> None:
        """The process is about to end: the source goes with it."""
        if self._source is not None:
            self._system.dispatch_source_cancel(self._source)


def library() -> Any:
    """The system's. Raises `OSError` where it has another one."""
    return ctypes.CDLL("/usr/lib/libSystem.dylib")
