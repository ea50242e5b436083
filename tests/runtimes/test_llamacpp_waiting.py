"""How llama.cpp's threads are told to wait for each other."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pilotlight.runtimes.llamacpp.library import import_llama
from pilotlight.runtimes.llamacpp.waiting import (
    BUSY,
    CALM,
    LEAST_S,
    LOOK_EVERY_S,
    IdleThreads,
    Waiting,
    has_room,
)
from serving import until


class FakeCrowd:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def gather(self) -> None:
        self.told.append("gather")

    def leave(self) -> None:
        self.told.append("leave")


class Machine:
    """A thread's times, in a file as the kernel has it."""

    def __init__(self, folder: Path) -> None:
        self.stat = folder / "schedstat"
        self.now = self.ran_s = self.stood_s = 0.0
        self.crowd = FakeCrowd()
        self._write()
        self.waiting = Waiting(self.crowd, self.stat, lambda: self.now)
        self.waiting.look()

    def compute(self, seconds: float, part_in_line: float, num_steps: int = 10) -> list[str]:
        """What the crowd was told meanwhile."""
        self.crowd.told.clear()
        for _ in range(num_steps):
            self.now += seconds / num_steps
            self.ran_s += (1 - part_in_line) * seconds / num_steps
            self.stood_s += part_in_line * seconds / num_steps
            self._write()
            self.waiting.look()
        return self.crowd.told

    def _write(self) -> None:
        self.stat.write_text(f"{self.ran_s * 1e9:.0f} {self.stood_s * 1e9:.0f} 17\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_threads_sleep_while_others_want_the_processors(machine: Machine) -> None:
    """From the first look on, and no longer than that lasts."""
    assert machine.compute(1.0, 0.01) == []
    assert machine.compute(2 * LOOK_EVERY_S, 2 * BUSY) == ["gather"]
    assert machine.compute(1.0, 2 * BUSY) == []
    assert machine.compute(1.0, CALM / 2) == ["leave"]
    assert machine.compute(1.0, 0.0) == []


def test_what_is_neither_busy_nor_calm_changes_nothing(machine: Machine) -> None:
    """Threads are not started and ended five times a second."""
    between = (BUSY + CALM) / 2
    assert machine.compute(1.0, between) == []
    assert machine.compute(1.0, BUSY * 1.1) == ["gather"]
    assert machine.compute(1.0, between) == []


def test_a_short_answer_says_nothing(machine: Machine) -> None:
    """A thread that was woken may have stood in line once; several of them say something."""
    for told in ([], ["gather"]):
        machine.now += 10.0
        assert machine.compute(LEAST_S * 0.6, 1.0, num_steps=1) == told


@pytest.fixture
def idle_threads() -> IdleThreads:
    import_llama()
    try:
        return IdleThreads()
    except (OSError, AttributeError):
        pytest.skip("llama.cpp's threads are not those of GNU's OpenMP")


def test_idle_threads_are_more_than_there_are_processors(idle_threads: IdleThreads) -> None:
    """Each time they are asked for; afterwards none is left."""
    before, num_processors = num_threads(), len(os.sched_getaffinity(0))
    for _ in range(2):
        idle_threads.gather()
        assert until(lambda: num_threads() == before + num_processors + 1)
        idle_threads.leave()
        assert until(lambda: num_threads() == before)


def test_without_room_for_a_thread_an_answer_goes_on(idle_threads: IdleThreads) -> None:
    """Its threads only stay awake."""
    usual = threading.stack_size(2**48)  # more than there are addresses
    try:
        idle_threads.gather()
    finally:
        threading.stack_size(usual)
    idle_threads.leave()


def room(root: Path, files: dict[str, str], num_running: int = 2) -> list[bool]:
    """Whether there is room for 10 threads, and for 11."""
    for name, content in {"proc/loadavg": f"0.20 0.18 0.12 1/{num_running} 11206", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return [has_room(count, root) for count in (10, 11)]


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only there such threads are gathered")


@linux_only
@pytest.mark.parametrize(
    ("cgroup", "folder"), [("0::/a/b", "sys/fs/cgroup/a"), ("5:pids:/a/b", "sys/fs/cgroup/pids/a")]
)
def test_threads_need_room_in_every_cgroup(tmp_path: Path, cgroup: str, folder: str) -> None:
    """For twice as many, as others start some too: where one cannot be started, the process ends."""
    inner = {"proc/self/cgroup": cgroup, f"{folder}/b/pids.max": "max", f"{folder}/b/pids.current": "3"}
    assert room(tmp_path, inner) == [True, True]
    assert room(tmp_path, {f"{folder}/pids.max": "50", f"{folder}/pids.current": "30"}) == [True, False]
    assert room(tmp_path, {f"{folder}/pids.current": "45"}) == [False, False]


@linux_only
def test_threads_need_room_among_those_of_our_user(tmp_path: Path) -> None:
    """Of whose threads there are at most as many as of all users; where that is not told there is none."""
    import resource

    usual = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1000, usual[1]))
    try:
        assert room(tmp_path, {}, num_running=980) == [True, False]
        (tmp_path / "proc/loadavg").unlink()
        assert not has_room(1, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, usual)


def num_threads() -> int:
    """Of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells how long a thread stood in line")
@pytest.mark.parametrize(("loads", "is_told"), [("pass", False), ("import_llama()", True)])
def test_without_gnu_s_openmp_there_is_nothing_to_tell(
    idle_threads: IdleThreads, loads: str, is_told: bool
) -> None:
    """It isn't loaded for that."""
    program = (
        "from pilotlight.runtimes.llamacpp.library import import_llama\n"
        "from pilotlight.runtimes.llamacpp.waiting import Waiting\n"
        f"{loads}; print(Waiting.start() is not None)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == f"{is_told}\n"
