"""What a process is to the system, and back: for real on Linux, as recorded calls elsewhere."""

import errno
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pilotlight.worker.priority import Fixed, Priority, scheduling
from pilotlight.worker.priority_macos import Mac
from pilotlight.worker.priority_windows import SET_INFORMATION, Windows

PROGRAM = """
import os, subprocess
from pilotlight.worker.priority import Priority, scheduling
scheduling()
if {is_nobody}:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
for priority in Priority.LOW, Priority.NORMAL:
    scheduling().set(child.pid, priority)
    print("policy", os.sched_getscheduler(child.pid))
child.communicate()
"""
"""Prints the policy of a child, first lowered and then back."""

only_root = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root can be others")


def policies(*, is_nobody: bool) -> list[int]:
    """Of a process of nobody's or ours."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(is_nobody=is_nobody)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("policy ")]


@only_root
def test_who_cannot_come_back_is_no_idle_process() -> None:
    """Who may not raise a priority, as most users on most systems, takes the policy that one may leave."""
    assert policies(is_nobody=True) == [os.SCHED_BATCH, os.SCHED_OTHER]


@only_root
def test_who_can_come_back_runs_when_nothing_else_does() -> None:
    """Only there, whatever the rights in a namespace say."""
    from pilotlight.worker.priority_linux import ALL_USERS

    is_first = Path("/proc/self/uid_map").read_text().split() == ALL_USERS
    assert policies(is_nobody=False) == [os.SCHED_IDLE if is_first else os.SCHED_BATCH, os.SCHED_OTHER]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has it")
def test_a_process_that_has_ended_is_nobodys_business() -> None:
    """It may end between two looks."""
    child = subprocess.Popen(["true"])
    child.wait()
    scheduling().set(child.pid, Priority.LOW)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has it")
@pytest.mark.parametrize("call", ["sched_getscheduler", "sched_getparam"])
def test_where_the_system_tells_no_policy_none_is_set(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """musl has no such calls, and a filter of system calls may refuse them: workers run as they are."""

    def refused(pid: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, call, refused)
    assert isinstance(scheduling.__wrapped__(), Fixed)


@dataclass
class Calls:
    """Windows, as far as it is asked; knows one process."""

    said: list[tuple[str, int, int]] = field(default_factory=list)

    def open(self, pid: int, rights: int) -> int:
        self.said.append(("open", pid, rights))
        return 77 if pid == 5 else 0

    def set_class(self, handle: int, priority_class: int) -> bool:
        self.said.append(("class", handle, priority_class))
        return True

    def set_throttling(self, handle: int, control: int, state: int) -> bool:
        self.said.append(("throttling", control, state))
        return True

    def close(self, handle: int) -> None:
        self.said.append(("close", handle, 0))


@pytest.mark.parametrize(
    ("priority", "priority_class", "is_eco"),
    [(Priority.NORMAL, 0x20, 0), (Priority.LOW, 0x40, 0), (Priority.ECO, 0x40, 1)],
)
def test_on_windows_it_is_the_class_and_the_throttling_of_the_process(
    priority: Priority, priority_class: int, is_eco: int
) -> None:
    """And no handle is left open."""
    calls = Calls()
    Windows(calls).set(5, priority)
    assert calls.said == [
        ("open", 5, SET_INFORMATION),
        ("class", 77, priority_class),
        ("throttling", is_eco, is_eco),
        ("close", 77, 0),
    ]


def test_on_macos_only_what_saves_energy_is_in_the_background() -> None:
    """By the process, from outside; 0 takes it back."""
    said: list[tuple[int, int, int]] = []

    def setpriority(which: int, who: int, value: int) -> int:
        said.append((which, who, value))
        return 0

    for priority in Priority.LOW, Priority.ECO, Priority.NORMAL:
        Mac(setpriority).set(5, priority)
    assert said == [(4, 5, 0), (4, 5, 0x1000), (4, 5, 0)]


def test_on_windows_a_process_that_has_ended_is_nobodys_business() -> None:
    """It cannot be opened any more."""
    calls = Calls()
    Windows(calls).set(6, Priority.LOW)
    assert calls.said == [("open", 6, SET_INFORMATION)]
