"""The calls of Windows that `windows` asks, by ctypes. None of them needs rights or wakes anything."""

import ctypes
from ctypes import byref, c_int, c_ubyte, c_uint, c_uint32, c_void_p
from typing import Any

from pilotlight.power.windows import Status

LOW_MEMORY = 0


class _PowerStatus(ctypes.Structure):
    _fields_ = (
        ("line", c_ubyte),
        ("flag", c_ubyte),
        ("percent", c_ubyte),
        ("saver", c_ubyte),
        ("seconds", c_uint32),
        ("seconds_full", c_uint32),
    )


class _LastInput(ctypes.Structure):
    _fields_ = (("size", c_uint), ("tick", c_uint32))


class SystemCalls:
    """`windows.Calls`, for real. Raises `OSError` or `AttributeError` at once where there is no Windows."""

    def __init__(self) -> None:
        windll: Any = ctypes.windll  # type: ignore[attr-defined, unused-ignore]  # only Windows has it
        self._kernel, self._user = windll.kernel32, windll.user32
        self._kernel.CreateMemoryResourceNotification.restype = c_void_p
        self._kernel.QueryMemoryResourceNotification.argtypes = (c_void_p, c_void_p)
        self._kernel.GetTickCount.restype = c_uint32
        self._memory = self._kernel.CreateMemoryResourceNotification(LOW_MEMORY)

    def status(self) -> Status | None:
        found = _PowerStatus()
        if not self._kernel.GetSystemPowerStatus(byref(found)):
            return None
        return Status(found.line, found.flag, found.percent, found.saver, found.seconds)

    def idle_s(self) -> float | None:
        found = _LastInput(ctypes.sizeof(_LastInput), 0)
        if not self._user.GetLastInputInfo(byref(found)):
            return None
        milliseconds = (self._kernel.GetTickCount() - found.tick) % 2**32  # it starts anew every 49.7 days
        return float(milliseconds) / 1000

    def is_memory_low(self) -> bool | None:
        is_low = c_int()
        if not self._memory or not self._kernel.QueryMemoryResourceNotification(self._memory, byref(is_low)):
            return None
        return bool(is_low.value)
