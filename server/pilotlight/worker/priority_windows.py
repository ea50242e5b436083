"""Windows: the priority class of a process, and EcoQoS, which anybody may lower and raise again.

From Microsoft's documentation and tested with recorded calls only; never run there.
"""

import ctypes
from typing import Any, Protocol

from pilotlight.worker.priority import Priority

CLASSES = {Priority.NORMAL: 0x20, Priority.LOW: 0x40, Priority.ECO: 0x40}
"""NORMAL_PRIORITY_CLASS and IDLE_PRIORITY_CLASS."""

POWER_THROTTLING = 4
"""ProcessPowerThrottling, one of the things that SetProcessInformation sets."""

EXECUTION_SPEED = 1
"""What of it is ours to say."""

SET_INFORMATION = 0x0200
"""The right that a handle needs for it."""


class Calls(Protocol):
    """What is asked of the system."""

    def open(self, pid: int, rights: int) -> int:
        """A handle; 0 if there is no such process."""

    def set_class(self, handle: int, priority_class: int) -> bool:
        """False if it was refused."""

    def set_throttling(self, handle: int, control: int, state: int) -> bool:
        """`control` is what we say something of, `state` what of that is on; False if it was refused."""

    def close(self, handle: int) -> None:
        """The handle is of no more use."""


class Windows:
    """Owns nothing: what a process is stands in the system."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def set(self, pid: int, priority: Priority) -> None:
        """See `priority.Scheduling`."""
        handle = self._calls.open(pid, SET_INFORMATION)
        if handle:
            self._calls.set_class(handle, CLASSES[priority])
            is_eco = EXECUTION_SPEED if priority is Priority.ECO else 0  # of 0 the system decides
            self._calls.set_throttling(handle, is_eco, is_eco)
            self._calls.close(handle)


class _Throttling(ctypes.Structure):
    """PROCESS_POWER_THROTTLING_STATE."""

    _fields_ = (("version", ctypes.c_uint32), ("control", ctypes.c_uint32), ("state", ctypes.c_uint32))


class SystemCalls:
    """`Calls`, for real. Raises `AttributeError` at once where there is no Windows."""

    def __init__(self) -> None:
        kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]  # only Windows has it
        kernel.OpenProcess.restype = ctypes.c_void_p
        kernel.SetPriorityClass.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        kernel.SetProcessInformation.argtypes = (
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_uint32,
        )
        kernel.CloseHandle.argtypes = (ctypes.c_void_p,)
        self._kernel = kernel

    def open(self, pid: int, rights: int) -> int:
        return self._kernel.OpenProcess(rights, False, pid) or 0

    def set_class(self, handle: int, priority_class: int) -> bool:
        return bool(self._kernel.SetPriorityClass(handle, priority_class))

    def set_throttling(self, handle: int, control: int, state: int) -> bool:
        given = _Throttling(1, control, state)
        size = ctypes.sizeof(given)
        return bool(self._kernel.SetProcessInformation(handle, POWER_THROTTLING, ctypes.byref(given), size))

    def close(self, handle: int) -> None:
        self._kernel.CloseHandle(handle)
