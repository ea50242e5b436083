"""Linux: scheduling policies, thread by thread.

SCHED_IDLE is what we want: it runs when nothing else does, and its I/O, too, comes last
(include/linux/ioprio.h, `task_nice_ioclass`). But out of it an unprivileged thread gets only with an
RLIMIT_NICE that most systems do not give (sched(7)), and one that cannot come back is slow for whoever asks
next. Where that is so it is SCHED_BATCH, which anybody may enter and leave: such threads do not interrupt
others when they wake. Clocks are for the whole machine, see `power.saver`.
"""

import os
import re
import resource
from contextlib import suppress
from pathlib import Path

import structlog

from pilotlight.worker.priority import Fixed, Priority, Scheduling

NO_PRIORITY = os.sched_param(0)
"""None but real-time policies have one."""

CAP_SYS_NICE = 23

ALL_USERS = ["0", "0", "4294967295"]
"""The map of the first user namespace."""

log = structlog.get_logger()


def linux() -> Scheduling:
    """Nothing is set where no policy is told: musl has no such calls, and filters may refuse them."""
    try:
        return Linux()
    except OSError as exc:
        log.warning("workers' priorities cannot be set", reason=str(exc))
        return Fixed()


class Linux:
    """Owns what was found out: the policy we run with ourselves, and the lowest with a way back from it.

    Raises `OSError` if the system does not tell.
    """

    def __init__(self) -> None:
        self._normal = os.sched_getscheduler(0), os.sched_getparam(0)
        self._low: int | None = None

    def set(self, pid: int, priority: Priority) -> None:
        """See `priority.Scheduling`."""
        policy, param = self._normal if priority is Priority.NORMAL else (self._lowest, NO_PRIORITY)
        done: set[int] = set()
        # A thread that is started meanwhile is like the one that starts it, so it may be like none of them.
        while new := _threads(pid) - done:
            for thread in new:
                self._set(thread, policy, param)
            done |= new

    def _set(self, thread: int, policy: int, param: os.sched_param) -> None:
        try:
            os.sched_setscheduler(thread, policy, param)
        except ProcessLookupError:
            return  # it has ended
        except OSError as exc:
            log.warning("a worker's priority cannot be set", policy=policy, reason=str(exc))

    @property
    def _lowest(self) -> int:
        if self._low is None:
            self._low = os.SCHED_IDLE if _comes_back() else os.SCHED_BATCH
            log.info("background workers give way", policy="idle" if self._low == os.SCHED_IDLE else "batch")
        return self._low


def _comes_back() -> bool:
    """Whether the kernel would let our threads leave SCHED_IDLE (kernel/sched/syscalls.c, `can_nice`).

    Not tried out: a thread of ours that is in there may hold up the others while the machine is busy.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
    needed = 20 - os.getpriority(os.PRIO_PROCESS, 0)
    return limit == resource.RLIM_INFINITY or limit >= needed or _is_privileged()


def _is_privileged() -> bool:
    """It has CAP_SYS_NICE, and not only in a container's own user namespace."""
    try:
        status = Path("/proc/self/status").read_text()
        users = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return False
    found = re.search(r"^CapEff:\s+([0-9a-f]+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> CAP_SYS_NICE & 1) and users == ALL_USERS


def _threads(pid: int) -> set[int]:
    """None once the process has ended."""
    with suppress(OSError):
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    return set()
