"""Windows: memory pressure from the notification that physical memory runs low.

From Microsoft's documentation; the calls were never made there. It knows one level, so it warns, and as long
as memory stays low it warns again.
"""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_ubyte, c_uint32, c_void_p
from typing import Any

from pilotlight.registry.pressure import Level

LOW_MEMORY = 0
INFINITE = 0xFFFFFFFF
ONCE = 0x8
"""WT_EXECUTEONLYONCE: the notification stays raised as long as memory is low."""

UNTIL_IT_RETURNED = -1
"""INVALID_HANDLE_VALUE: a callback that runs is waited for."""

CALLBACK = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)(None, c_void_p, c_ubyte)


class Windows:
    """`pressure.System`. Owns the notification and the wait for it; `kernel` is kernel32."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._kernel.CreateMemoryResourceNotification.restype = c_void_p
        self._kernel.QueryMemoryResourceNotification.argtypes = (c_void_p, c_void_p)
        handles = (c_void_p, c_void_p, c_void_p, c_void_p, c_uint32, c_uint32)
        self._kernel.RegisterWaitForSingleObject.argtypes = handles
        self._kernel.UnregisterWaitEx.argtypes = (c_void_p, c_void_p)
        self._low = self._kernel.CreateMemoryResourceNotification(LOW_MEMORY)
        self._wait = c_void_p()
        self._callback: Any = None

    def arm(self, hear: Callable[[], None]) -> None:
        """For one time; a wait that is over has to be taken back all the same."""
        self.close()
        self._callback = CALLBACK(lambda _context, _is_timeout: hear())
        self._kernel.RegisterWaitForSingleObject(
            byref(self._wait), self._low, self._callback, None, INFINITE, ONCE
        )

    def level(self) -> Level:
        """What is not known is no pressure."""
        is_low = c_int()
        is_known = self._kernel.QueryMemoryResourceNotification(self._low, byref(is_low))
        return Level.WARN if is_known and is_low.value else Level.NONE

    def close(self) -> None:
        """Waits for a callback that runs."""
        if self._wait:
            self._kernel.UnregisterWaitEx(self._wait, c_void_p(UNTIL_IT_RETURNED))
            self._wait = c_void_p()


def library() -> Any:
    """Raises `AttributeError` where there is no Windows."""
    return ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]  # only Windows has it
