"""Memory pressure on systems that do not repeat themselves; recorded calls stand in for macOS and Windows."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from pilotlight.registry.pressure import Level, follow
from pilotlight.registry.pressure_macos import Mac
from pilotlight.registry.pressure_windows import ONCE, Windows


@dataclass
class Script:
    """A system whose memory gets short at once, and is so as often as it says."""

    levels: list[Level]
    told: list[Level] = field(default_factory=list)
    num_armed: int = 0
    is_closed: bool = False

    def arm(self, hear: Callable[[], None]) -> None:
        self.num_armed += 1
        if self.num_armed == 1:
            hear()

    def level(self) -> Level:
        return self.levels.pop(0)

    def close(self) -> None:
        self.is_closed = True


async def followed(levels: list[Level], num_told: int) -> Script:
    system = Script(levels)
    async with anyio.create_task_group() as tasks:

        def tell(level: Level) -> None:
            system.told.append(level)
            if len(system.told) == num_told:
                tasks.cancel_scope.cancel()

        with anyio.fail_after(20):
            await follow(system, tell, calm_s=0.01)
    return system


async def test_pressure_that_lasts_is_told_again_and_then_its_end() -> None:
    """A second word means that the first did not help."""
    short = [Level.WARN, Level.WARN, Level.CRITICAL, Level.NONE]
    system = await followed(list(short), len(short))
    assert (system.told, system.is_closed) == (short, True)


async def test_a_false_alarm_is_not_told() -> None:
    """It is listened to again; until the next word nobody looks."""
    system = Script([Level.NONE])
    async with anyio.create_task_group() as tasks:

        def arm(hear: Callable[[], None]) -> None:
            Script.arm(system, hear)
            if system.num_armed == 2:
                tasks.cancel_scope.cancel()

        heard = SimpleNamespace(arm=arm, level=system.level, close=system.close)
        with anyio.fail_after(20):
            await follow(heard, system.told.append, calm_s=0.01)
    assert (system.told, system.levels, system.is_closed) == ([], [], True)


class MacLibrary(SimpleNamespace):
    """What libSystem was asked, and the level it says."""

    def __init__(self, number: int, failure: int = 0) -> None:
        self.asked: list[tuple[Any, ...]] = []

        def sysctl(name: bytes, level: Any, *_: Any) -> int:
            level._obj.value = number
            return failure

        def create(kind: Any, handle: int, mask: int, queue: int) -> int:
            self.asked.append((handle, mask, queue))
            return 7

        super().__init__(
            _dispatch_source_type_memorypressure=ctypes.c_void_p(1),
            dispatch_get_global_queue=lambda _priority, _flags: 5,
            dispatch_source_create=create,
            dispatch_source_set_event_handler_f=lambda _source, handler: self.asked.append((handler,)),
            dispatch_resume=lambda source: self.asked.append(("resume", source)),
            dispatch_source_cancel=lambda source: self.asked.append(("cancel", source)),
            sysctlbyname=sysctl,
        )


def test_a_mac_tells_changes_of_its_level() -> None:
    """All three of them, to one source, which is made once."""
    library, heard = MacLibrary(1), []
    system = Mac(library)
    system.arm(lambda: heard.append("heard"))
    system.arm(lambda: heard.append("again"))
    (created, (handler,), resumed) = library.asked
    assert (created, resumed) == ((0, 0b111, 5), ("resume", 7))
    handler(None)
    assert heard == ["heard"]
    system.close()
    assert library.asked[-1] == ("cancel", 7)


@pytest.mark.parametrize(
    ("number", "failure", "level"),
    [
        (1, 0, Level.NONE),
        (2, 0, Level.WARN),
        (4, 0, Level.CRITICAL),
        (3, 0, Level.NONE),
        (4, -1, Level.NONE),
    ],
)
def test_a_mac_says_how_short_memory_is(number: int, failure: int, level: Level) -> None:
    """What is not known is no pressure."""
    assert Mac(MacLibrary(number, failure)).level() is level


class Kernel(SimpleNamespace):
    """What kernel32 was asked, and whether memory is low."""

    def __init__(self, is_low: bool) -> None:
        self.asked: list[tuple[Any, ...]] = []

        def query(_handle: int, found: Any) -> int:
            found._obj.value = is_low
            return 1

        def register(wait: Any, handle: int, callback: Any, _context: None, _time: int, flags: int) -> int:
            wait._obj.value = 9
            self.asked.append((handle, callback, flags))
            return 1

        super().__init__(
            CreateMemoryResourceNotification=lambda kind: 30 + kind,
            QueryMemoryResourceNotification=query,
            RegisterWaitForSingleObject=register,
            UnregisterWaitEx=lambda wait, _until: self.asked.append(("unregister", wait.value)),
        )


def test_windows_tells_once_that_memory_is_low() -> None:
    """The notification stays raised, so a wait for it is asked for anew, and the old one taken back."""
    kernel, heard = Kernel(is_low=True), []
    system = Windows(kernel)
    system.arm(lambda: heard.append("heard"))
    (handle, callback, flags) = kernel.asked.pop()
    callback(None, 0)
    assert (handle, flags, heard) == (30, ONCE, ["heard"])
    system.arm(heard.clear)
    assert [one[0] for one in kernel.asked] == ["unregister", 30]
    system.close()
    system.close()
    assert [one[0] for one in kernel.asked] == ["unregister", 30, "unregister"]


@pytest.mark.parametrize(("is_low", "level"), [(True, Level.WARN), (False, Level.NONE)])
def test_windows_says_whether_memory_is_low(is_low: bool, level: Level) -> None:
    """It knows no worse."""
    assert Windows(Kernel(is_low)).level() is level
