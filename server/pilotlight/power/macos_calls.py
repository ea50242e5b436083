"""The calls of macOS that `macos` asks, by ctypes. None of them needs rights or wakes anything."""

import ctypes
from ctypes import byref, c_bool, c_char_p, c_int, c_long, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from pilotlight.power.macos import Battery

FRAMEWORKS = "/System/Library/Frameworks/{0}.framework/{0}"
UTF8 = 0x08000100
LONG = 10
"""CoreFoundation's constants: an encoding of strings, and the kind of number that is a C long."""

THERMAL_PRESSURE = b"com.apple.system.thermalpressurelevel"


def _declared(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


class SystemCalls:
    """`macos.Calls`, for real. Raises `OSError` or `AttributeError` at once where a library is not as
    expected."""

    def __init__(self) -> None:
        io = ctypes.CDLL(FRAMEWORKS.format("IOKit"))
        core = ctypes.CDLL(FRAMEWORKS.format("CoreFoundation"))
        ctypes.CDLL(FRAMEWORKS.format("Foundation"))  # without it there is no NSProcessInfo
        objc = ctypes.CDLL("/usr/lib/libobjc.dylib")
        system = ctypes.CDLL("/usr/lib/libSystem.dylib")
        self._info = _declared(io, "IOPSCopyPowerSourcesInfo", c_void_p)
        self._list = _declared(io, "IOPSCopyPowerSourcesList", c_void_p, c_void_p)
        self._describe = _declared(io, "IOPSGetPowerSourceDescription", c_void_p, c_void_p, c_void_p)
        self._provider = _declared(io, "IOPSGetProvidingPowerSourceType", c_void_p, c_void_p)
        self._release = _declared(core, "CFRelease", None, c_void_p)
        self._count = _declared(core, "CFArrayGetCount", c_long, c_void_p)
        self._at = _declared(core, "CFArrayGetValueAtIndex", c_void_p, c_void_p, c_long)
        self._lookup = _declared(core, "CFDictionaryGetValue", c_void_p, c_void_p, c_void_p)
        self._string = _declared(core, "CFStringCreateWithCString", c_void_p, c_void_p, c_char_p, c_uint32)
        self._text = _declared(core, "CFStringGetCString", c_bool, c_void_p, c_char_p, c_long, c_uint32)
        self._number = _declared(core, "CFNumberGetValue", c_bool, c_void_p, c_long, c_void_p)
        self._class = _declared(objc, "objc_getClass", c_void_p, c_char_p)
        self._selector = _declared(objc, "sel_registerName", c_void_p, c_char_p)
        self._send = ctypes.cast(objc.objc_msgSend, c_void_p).value
        self._sysctl = _declared(
            system, "sysctlbyname", c_int, c_char_p, c_void_p, c_void_p, c_void_p, c_size_t
        )
        self._state = _declared(system, "notify_get_state", c_uint32, c_int, c_void_p)
        register = _declared(system, "notify_register_check", c_uint32, c_char_p, c_void_p)
        token = c_int()
        self._token = None if register(THERMAL_PRESSURE, byref(token)) else token

    # --- power ---

    def provider(self) -> str | None:
        info = self._info()
        try:
            return self._as_text(self._provider(info)) if info else None
        finally:
            self._free(info)

    def battery(self) -> Battery | None:
        info = self._info()
        sources = self._list(info) if info else None
        try:
            for index in range(self._count(sources) if sources else 0):
                source = self._describe(info, self._at(sources, index))
                if source and self._as_text(self._value(source, b"Type")) == "InternalBattery":
                    return self._battery(source)
            return None
        finally:
            self._free(sources)
            self._free(info)

    def _battery(self, source: int) -> Battery:
        keys = (b"Current Capacity", b"Max Capacity", b"Time to Empty")
        current, most, minutes = (self._as_number(self._value(source, key)) for key in keys)
        return Battery(current, most, minutes)

    # --- heat and memory ---

    def is_low_power(self) -> bool | None:
        return bool(self._ask(b"isLowPowerModeEnabled", c_bool))

    def thermal_state(self) -> int | None:
        return int(self._ask(b"thermalState", c_long))

    def thermal_pressure(self) -> int | None:
        state = c_uint64()
        if self._token is None or self._state(self._token, byref(state)):
            return None
        return state.value

    def memory_pressure(self) -> int | None:
        level, size = c_int(), c_size_t(ctypes.sizeof(c_int))
        failed = self._sysctl(b"kern.memorystatus_vm_pressure_level", byref(level), byref(size), None, 0)
        return None if failed else level.value

    # --- objects ---

    def _ask(self, method: bytes, kind: Any) -> Any:
        """Of the one NSProcessInfo."""
        assert self._send is not None, "libobjc has objc_msgSend"
        get = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p)(self._send)
        process = get(self._class(b"NSProcessInfo"), self._selector(b"processInfo"))
        return ctypes.CFUNCTYPE(kind, c_void_p, c_void_p)(self._send)(process, self._selector(method))

    def _value(self, dictionary: int, key: bytes) -> int | None:
        name = self._string(None, key, UTF8)
        try:
            value: int | None = self._lookup(dictionary, name)
            return value
        finally:
            self._free(name)

    def _as_text(self, value: int | None) -> str | None:
        buffer = ctypes.create_string_buffer(64)
        if not value or not self._text(value, buffer, len(buffer), UTF8):
            return None
        return buffer.value.decode("utf-8", "replace")

    def _as_number(self, value: int | None) -> int:
        """-1 without one."""
        number = c_long()
        return number.value if value and self._number(value, LONG, byref(number)) else -1

    def _free(self, value: int | None) -> None:
        if value:
            self._release(value)
