"""Pressure comes as events; sockets stand in for the kernel: their urgent data looks the same to epoll."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from pilotlight.registry import pressure_linux as pressure
from pilotlight.registry.pressure import Level
from pilotlight.registry.pressure_linux import watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PSI and epoll are Linux's")


class Trigger:
    """A source that fires when it is told."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._sender = socket.create_connection(server.getsockname())
            self._receiver, _ = server.accept()
        self.file = self._receiver.fileno()

    def fire(self) -> None:
        self._sender.send(b"!", socket.MSG_OOB)

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


@pytest.fixture
def triggers() -> Iterator[dict[Level, Trigger]]:
    with ExitStack() as stack:
        made = {level: Trigger() for level in (Level.WARN, Level.CRITICAL)}
        for trigger in made.values():
            stack.callback(trigger.close)
        yield made


def takes_triggers() -> bool:
    """Since Linux 6.4 from ordinary users, too."""
    try:
        place = os.open("/proc/pressure/memory", os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.write(place, b"some 150000 2000000\0")
    except OSError:
        return False
    finally:
        os.close(place)
    return True


async def told(triggers: dict[Level, Trigger], fired: list[Level], number: int) -> list[Level]:
    """What a watch tells first, when these fire one after another."""
    heard: list[Level] = []
    left = iter(fired)
    async with anyio.create_task_group() as tasks:

        def tell(level: Level) -> None:
            heard.append(level)
            if len(heard) == number:
                tasks.cancel_scope.cancel()
            if (following := next(left, None)) is not None:
                triggers[following].fire()

        triggers[next(left)].fire()
        with anyio.fail_after(20):
            sources = [pressure.Trigger(trigger.file, level) for level, trigger in triggers.items()]
            await watch(sources, tell, calm_s=0.05)
    return heard


async def test_an_event_is_told_and_then_its_end(triggers: dict[Level, Trigger]) -> None:
    """When nothing more comes."""
    assert await told(triggers, [Level.WARN], 2) == [Level.WARN, Level.NONE]


async def test_it_gets_worse_and_ends(triggers: dict[Level, Trigger]) -> None:
    """By the level of what fired."""
    heard = await told(triggers, [Level.WARN, Level.CRITICAL], 3)
    assert heard == [Level.WARN, Level.CRITICAL, Level.NONE]


@pytest.mark.skipif(not takes_triggers(), reason="a kernel without PSI, or with PSI for root alone")
def test_the_kernel_takes_our_triggers() -> None:
    """Ordinary users' too: their windows are multiples of two seconds."""
    with ExitStack() as files:
        found = [source for source in pressure.open_sources(files) if isinstance(source, pressure.Trigger)]
    assert [source.level for source in found[:2]] == [Level.WARN, Level.CRITICAL]


MEMINFO = "MemTotal: 1000 kB\nMemFree: {free} kB\nMemAvailable: 900 kB\n"

EVENTS = {"low": 0, "high": 4, "max": 7, "oom": 1, "oom_kill": 1}


@pytest.mark.parametrize(
    ("grown", "has_stalls", "expected"),
    [
        ({"oom_kill": 2}, True, Level.CRITICAL),
        ({"oom": 2, "max": 9}, True, Level.CRITICAL),
        ({"oom": 2}, False, Level.CRITICAL),
        ({"high": 5}, True, Level.NONE),
        ({"max": 8}, True, Level.NONE),
        ({"high": 5}, False, Level.WARN),
        ({"max": 8}, False, Level.WARN),
        ({"low": 9}, False, Level.NONE),
        ({"oom_kill": 0}, True, Level.NONE),
        ({"oom_group_kill": 1}, True, Level.NONE),
        ({}, False, Level.NONE),
    ],
)
def test_counters_of_our_cgroup_mean_what_grew(
    grown: dict[str, int], has_stalls: bool, expected: Level
) -> None:
    """Its limits only where stalls are not told; once, and not again for the same."""
    counts = dict(EVENTS)

    def text() -> bytes:
        return "".join(f"{name} {count}\n" for name, count in counts.items()).encode()

    counters = pressure.Counters(-1, text, has_stalls)
    counts |= grown
    assert [counters.heard(), counters.heard()] == [expected, Level.NONE]


@pytest.mark.parametrize("text", [b"", b"oom", b"oom x\n", b"\xff\xff 3\n", b"oom 1 2\n"])
def test_counters_that_are_none_mean_nothing(text: bytes) -> None:
    """Whatever a kernel may write there one day."""
    assert pressure.Counters(-1, lambda: text, has_stalls=False).heard() is Level.NONE


async def test_counters_are_heard_like_triggers(triggers: dict[Level, Trigger]) -> None:
    """What does not matter is not told, and does not end the listening."""
    texts = iter([b"oom 0\nmax 0\n", b"oom 0\nmax 1\n", b"oom 1\nmax 1\n"])
    wake = triggers[Level.WARN]
    heard: list[Level] = []
    async with anyio.create_task_group() as tasks:

        def read() -> bytes:
            text = next(texts)
            wake.fire()
            return text

        def tell(level: Level) -> None:
            heard.append(level)
            tasks.cancel_scope.cancel()

        with anyio.fail_after(20):
            await watch([pressure.Counters(wake.file, read, has_stalls=True)], tell)
    assert heard == [Level.CRITICAL]


def test_the_machine_and_our_cgroup_are_both_listened_to(tmp_path: Path) -> None:
    """In a cgroup of its own, an idle daemon feels nothing of what other programs suffer. While much of the
    machine is free, though, somebody else is at a limit of their own."""
    group = tmp_path / "sys/fs/cgroup/app.slice/pilotlight.service"
    for folder in (group, tmp_path / "proc/pressure", tmp_path / "proc/self"):
        folder.mkdir(parents=True)
    for file in (tmp_path / "proc/pressure/memory", group / "memory.pressure", group / "memory.events"):
        file.touch()
    (tmp_path / "proc/self/cgroup").write_text("0::/app.slice/pilotlight.service\n")
    (meminfo := tmp_path / "proc/meminfo").write_text(MEMINFO.format(free=80))
    with ExitStack() as files:
        sources = pressure.open_sources(files, tmp_path)
        assert [type(source) for source in sources] == [pressure.Trigger] * 4 + [pressure.Counters]
        assert [source.heard() for source in sources[:2]] == [Level.WARN, Level.CRITICAL]
        meminfo.write_text(MEMINFO.format(free=300))
        assert [source.heard() for source in sources[:2]] == [Level.NONE, Level.NONE]
        assert [source.heard() for source in sources[2:4]] == [Level.WARN, Level.CRITICAL]
    assert (group / "memory.pressure").read_bytes() == b"full 200000 2000000\0"  # the last that was asked for


def test_limits_count_where_only_the_machine_tells_of_stalls(tmp_path: Path) -> None:
    """In a container that may only read of its cgroup: at its limit, the machine has plenty."""
    group = tmp_path / "sys/fs/cgroup"
    for folder in (group, tmp_path / "proc/pressure", tmp_path / "proc/self"):
        folder.mkdir(parents=True)
    (tmp_path / "proc/pressure/memory").touch()
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable: {60 * 2**20} kB\n")
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("1000\n")
    (stat := group / "memory.stat").write_text("inactive_file 100\n")
    (events := group / "memory.events").write_text("high 0\nmax 7\n")
    with ExitStack() as files:
        *_, counters = pressure.open_sources(files, tmp_path)
        assert counters.heard() is Level.NONE
        events.write_text("high 0\nmax 8\n")
        assert counters.heard() is Level.WARN
        stat.write_text("inactive_file 500\n")
        events.write_text("high 0\nmax 9\n")
        assert counters.heard() is Level.NONE, "what it drops there are pages of a file that is read"
