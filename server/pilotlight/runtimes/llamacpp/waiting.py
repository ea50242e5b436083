"""How OpenMP's threads wait for each other: awake, or asleep while other programs want the processors.

Awake is up to a tenth faster, as long as each thread has a processor. Where one stands in line behind another
program, those awake keep it there. GNU's OpenMP lets threads sleep at once while there are more of them than
processors (see `GOMP_SPINCOUNT` in its manual), so some that do nothing are kept meanwhile. Linux.
"""

import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from pilotlight.runtimes import cgroups

LOOK_EVERY_S = 0.2

LEAST_S = 0.1
"""Running or standing in line for less than that says little."""

BUSY, CALM = 0.2, 0.1
"""Of the time in which the thread could run, the part it stood in line: from the first on threads sleep,
below the second no more. Measured with two threads on two processors: at most 0.01 with nothing else running,
0.34 to 0.5 beside one or two busy programs, whether the threads sleep or not."""


class Crowd(Protocol):
    """Threads that do nothing; see `IdleThreads`."""

    def gather(self) -> None: ...

    def leave(self) -> None: ...


class IdleThreads:
    """More threads of GNU's OpenMP than there are processors, asleep.

    Raises `OSError` if it isn't loaded, `AttributeError` if what is loaded under its name is something else.
    """

    def __init__(self) -> None:
        # That of llama.cpp, and no other.
        self._gomp: Any = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
        self._gomp.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._may_leave = threading.Event()

    def gather(self) -> None:
        """Returns at once; they are there a moment later, if there is room for them."""
        self._may_leave = threading.Event()
        thread = threading.Thread(target=self._stay, args=[self._may_leave], name="idle", daemon=True)
        with suppress(RuntimeError):  # there is none even for this one
            thread.start()

    def leave(self) -> None:
        self._may_leave.set()

    def _stay(self, may_leave: threading.Event) -> None:
        """Each thread has a team of its own, which lives and ends with it."""
        gomp = self._gomp
        anything_harmless = ctypes.cast(gomp.omp_get_thread_num, ctypes.c_void_p)
        # Enough however few compute: that is another number for a token than for a prompt.
        num_threads = gomp.omp_get_num_procs() + 1
        # Where a thread cannot be started, GNU's OpenMP ends the process.
        if has_room(num_threads):
            gomp.GOMP_parallel(anything_harmless, None, num_threads, 0)
            may_leave.wait()


def has_room(num_threads: int, root: Path = Path("/")) -> bool:
    """So many more threads may be started, and by others as many meanwhile; False where nobody tells."""
    with suppress(OSError):
        return all(2 * num_threads <= room for room in _rooms(root))
    return False


def _rooms(root: Path) -> Iterator[int]:
    """For how many threads there is room, by each limit that we have."""
    for _, folder in cgroups.folders("pids", root):
        with suppress(OSError, ValueError):  # no limit here: no such file, or "max"
            yield int((folder / "pids.max").read_text()) - int((folder / "pids.current").read_text())
    import resource  # only Unix has it

    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit != resource.RLIM_INFINITY:
        # It counts a user's threads, also those in other containers: at most as many as all users have.
        _, num_threads = (root / "proc/loadavg").read_text().split()[3].split("/")
        yield limit - int(num_threads)


class Waiting:
    """Gathers a `crowd` while the thread that computes, whose `stat` this is, often stands in line itself."""

    def __init__(self, crowd: Crowd, stat: Path, clock: Callable[[], float] = time.perf_counter) -> None:
        self._crowd = crowd
        self._stat = stat
        self._clock = clock
        self._next_look = -math.inf
        self._seen = (0, 0)
        self.is_busy = False

    @classmethod
    def start(cls) -> Self | None:
        """None where there is nothing to be told."""
        stat = Path("/proc/thread-self/schedstat")
        if sys.platform != "linux" or not stat.exists():
            return None
        try:
            return cls(IdleThreads(), stat)
        except (OSError, AttributeError):
            return None

    def look(self) -> None:
        """After each step, by the thread that computes; five times a second it takes some microseconds."""
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        ran_ns, stood_ns = self._read()
        ran, stood = ran_ns - self._seen[0], stood_ns - self._seen[1]
        if ran + stood < LEAST_S * 1e9:
            return
        self._seen = ran_ns, stood_ns
        part = stood / (ran + stood)
        if part >= BUSY and not self.is_busy:
            self.is_busy = True
            self._crowd.gather()
        elif part < CALM and self.is_busy:
            self.is_busy = False
            self._crowd.leave()

    def _read(self) -> tuple[int, int]:
        """Nanoseconds that the thread ran, and stood in line (sched-stats.rst of the kernel)."""
        ran, stood, _ = self._stat.read_bytes().split()
        return int(ran), int(stood)
