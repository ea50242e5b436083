"""Linux: memory pressure, from triggers on pressure stall information (PSI), of the machine and of our own
cgroup, and from the counters of that cgroup (`memory.events`). Where the kernel has none there is silence.
"""

import math
import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio
import structlog
from msgspec import Struct

from pilotlight.registry import memory
from pilotlight.registry.pressure import CALM_S, Level

WINDOW_US = 2_000_000
"""An ordinary user may only take multiples of two seconds. While it lasts, the kernel tells once in each."""

log = structlog.get_logger()

TRIGGERS = {
    Level.WARN: f"some {WINDOW_US * 15 // 200} {WINDOW_US}",
    Level.CRITICAL: f"full {WINDOW_US // 10} {WINDOW_US}",
}
"""Of each window, some task stalls for 7.5 % of the time, or all do for 10 %."""

OUT = ("oom", "oom_kill")
"""Counters of a cgroup whose memory was at its end: that may come too fast for any stall to be seen."""

LIMITS = ("high", "max")
"""Those of a cgroup that touched its limits. Dropping pages of files at the limit is everyday work, and what
hurts of it is a stall; so they count only where stalls are not told, and little is left without those
pages."""


PLENTY = 0.25
"""While so much of the machine is free, what stalls there is somebody else's cgroup at a limit of its own;
while so much is left of what we may use, what is dropped at our own limit is pages of files."""


class Source(Protocol):
    """A file that has urgent data (`EPOLLPRI`) when something has happened."""

    @property
    def file(self) -> int: ...

    def heard(self) -> Level:
        """What it was; `NONE` if nothing of interest."""


class Trigger(Struct, frozen=True):
    """One of PSI's: the file stands for one level, which counts unless there `is_plenty` of memory."""

    file: int
    level: Level
    is_plenty: Callable[[], bool] = lambda: False

    def heard(self) -> Level:
        return Level.NONE if self.is_plenty() else self.level


@dataclass(slots=True)
class Counters:
    """`memory.events` of a cgroup, version 2: `read` gives its text. Not all of them matter, see `LIMITS`."""

    file: int
    read: Callable[[], bytes]
    has_stalls: bool
    is_plenty: Callable[[], bool] = lambda: False
    _known: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._known = self._counts()

    def heard(self) -> Level:
        before, self._known = self._known, self._counts()
        grown = {name for name, count in self._known.items() if count > before.get(name, 0)}
        if grown.intersection(OUT):
            return Level.CRITICAL
        is_news = grown.intersection(LIMITS) and not self.has_stalls
        return Level.WARN if is_news and not self.is_plenty() else Level.NONE

    def _counts(self) -> dict[str, int]:
        lines = (line.split() for line in self.read().decode(errors="replace").splitlines())
        return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


async def listen(tell: Callable[[Level], None], root: Path = Path("/")) -> None:
    """Tell every event until cancelled, and `NONE` when it is over; returns at once where there are none."""
    with ExitStack() as files:
        sources = open_sources(files, root)
        if not sources:
            log.info("memory pressure is not reported here")
            return
        await watch(sources, tell)


async def watch(sources: Iterable[Source], tell: Callable[[Level], None], calm_s: float = CALM_S) -> None:
    """The same for open sources."""
    words, heard = anyio.create_memory_object_stream[Level](math.inf)
    async with anyio.create_task_group() as tasks:
        with words, heard:
            for source in sources:
                tasks.start_soon(_hear, source, words.send_nowait)
            highest = Level.NONE
            while True:
                with anyio.move_on_after(calm_s if highest else math.inf) as calm:
                    highest = max(highest, await heard.receive())
                if calm.cancelled_caught:
                    highest = Level.NONE
                tell(highest)


async def _hear(source: Source, tell: Callable[[Level], None]) -> None:
    with select.epoll() as epoll:
        # asyncio itself does not wait for urgent data, but for an epoll that does. One for each file:
        # asyncio's look at it may already take the event, and then nobody knows which file it was.
        epoll.register(source.file, select.EPOLLPRI | select.EPOLLET)
        while True:
            await anyio.wait_readable(epoll.fileno())
            epoll.poll(0)
            if level := source.heard():
                tell(level)


def open_sources(files: ExitStack, root: Path = Path("/")) -> list[Source]:
    """All that there are; `files` closes them."""
    group = next((folder for _, folder in memory.groups(root)), None)
    machine = root / "proc/pressure/memory"
    triggers = list(_triggers(machine, files, lambda: memory.free_share(root) > PLENTY))
    if group is None:
        return triggers
    # Whether the group stalls, the machine's triggers do not say while much of it is free.
    own = list(_triggers(group / "memory.pressure", files, lambda: False))
    counters = _counters(group / "memory.events", files, bool(own), lambda: _has_plenty(root))
    return [*triggers, *own, *counters]


def _has_plenty(root: Path) -> bool:
    found = memory.read(root)
    return found.bytes_available > PLENTY * found.bytes_total


def _triggers(place: Path, files: ExitStack, is_plenty: Callable[[], bool]) -> Iterator[Source]:
    """One for each level, if the place takes them."""
    with suppress(OSError):
        for level, trigger in TRIGGERS.items():
            file = _open(place, os.O_RDWR | os.O_NONBLOCK, files)
            os.write(file, trigger.encode() + b"\0")
            yield Trigger(file, level, is_plenty)


def _counters(
    place: Path, files: ExitStack, has_stalls: bool, is_plenty: Callable[[], bool]
) -> Iterator[Source]:
    with suppress(OSError):
        file = _open(place, os.O_RDONLY, files)
        yield Counters(file, lambda: os.pread(file, 4096, 0), has_stalls, is_plenty)


def _open(place: Path, flags: int, files: ExitStack) -> int:
    file = os.open(place, flags)
    files.callback(os.close, file)
    return file
