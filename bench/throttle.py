"""Slows down running processes for real, as a governor does that lowers the clock.

By a control group where this user may make one (Linux; `cpu.max` of version 2, `cpu.cfs_quota_us` of 1), else
by stopping and continuing the processes. It knows nothing about heat.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil

from processes import tree

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 40_000
"""Shorter than any speed is measured over, so that it is slowness and no stutter. Not much shorter: a kernel
that counts time in ticks ends each run at one, and takes what is missing of it for other programs' work."""


class Throttle(Protocol):
    """What slows down."""

    def limit(self, part: float) -> None:
        """From now on the processes get this part of their speed, 0 to 1."""


@contextmanager
def throttling(pid: int, num_cpus: int) -> Iterator[Throttle]:
    """Of the process and of all that it starts; `num_cpus` is what they use at full speed."""
    try:
        group = ControlGroup(_own_folder(pid), pid, num_cpus)
    except OSError as error:
        print(f"no control group ({error}); processes are stopped and continued instead", file=sys.stderr)
        with _signals(pid) as signals:
            yield signals
        return
    try:
        yield group
    finally:
        group.close()


class ControlGroup:
    """Owns a control group with one process and those that it starts."""

    def __init__(self, folder: Path, pid: int, num_cpus: int) -> None:
        """Raises `OSError` where this is not to be had."""
        self._folder = folder
        self._num_cpus = num_cpus
        self._is_second = _has_second()
        folder.mkdir()
        try:
            self.limit(1.0)
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError:
            folder.rmdir()
            raise

    def limit(self, part: float) -> None:
        quota = max(1000, round(part * self._num_cpus * PERIOD_US))  # the least that the kernel takes
        if self._is_second:
            (self._folder / "cpu.max").write_text(f"{quota if part < 1 else 'max'} {PERIOD_US}")
        else:
            (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota if part < 1 else -1))

    def close(self) -> None:
        """Let the processes go and remove the group."""
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):  # it has just ended
                (self._folder.parent / "cgroup.procs").write_text(pid)
        self._folder.rmdir()


class Signals:
    """Stops a process tree for a part of each period; owns the thread that does it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._part = 1.0
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def limit(self, part: float) -> None:
        self._part = part

    def close(self) -> None:
        """Let the processes run."""
        self._is_done.set()
        self._thread.join()

    def _run(self) -> None:
        period_s = PERIOD_US / 1e6
        while not self._is_done.is_set():
            part = self._part
            if part < 1:
                self._send(signal.SIGSTOP)
                time.sleep(period_s * (1 - part))
                self._send(signal.SIGCONT)
            self._is_done.wait(period_s * part)

    def _send(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in tree(self._pid):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


@contextmanager
def _signals(pid: int) -> Iterator[Signals]:
    signals = Signals(pid)
    try:
        yield signals
    finally:
        signals.close()


def _own_folder(pid: int) -> Path:
    return (CGROUPS if _has_second() else CGROUPS / "cpu") / f"pilotlight-bench-{pid}"


def _has_second() -> bool:
    """Version 2 controls processors here."""
    controllers = CGROUPS / "cgroup.controllers"
    return controllers.exists() and "cpu" in controllers.read_text().split()
