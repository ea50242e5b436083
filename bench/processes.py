"""What a process and its children cost: memory, processor time, wake-ups.

It reads the operating system's counters and knows nothing about servers.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

import psutil

MIB = 2**20

RESTS_S = 1.0
"""A process that uses no processor for so long has ended what it did."""

STIRS_S = 0.02
"""Less processor time than this is no work."""


def tree(pid: int) -> list[psutil.Process]:
    """The process and all that descend from it. Linux only: to look through all processes takes long."""
    found = [psutil.Process(pid)]
    for child in _children(pid):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found += tree(child)
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of the tree so far, user and system."""
    times = [process.cpu_times() for process in tree(pid)]
    return sum(spent.user + spent.system for spent in times)


async def at_rest(pid: int) -> None:
    """Wait until the tree has nothing left to do."""
    before = -1.0
    while (now := cpu_s(pid)) - before > STIRS_S:
        before = now
        await asyncio.sleep(RESTS_S)


def pss_mib(pid: int) -> float:
    """Proportional set size of the tree: pages that processes share count once. Linux only."""
    num_bytes: int = sum(process.memory_full_info().pss for process in tree(pid))
    return num_bytes / MIB


def children_pss(pid: int) -> dict[int, int]:
    """Bytes that each child of the one process holds; pages they share count once. Linux only, and fast."""
    return {child: _pss(child) for child in _children(pid)}


def _children(pid: int) -> list[int]:
    found: list[str] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            found += listed.read_text().split()
    return [int(child) for child in found]


def _pss(pid: int) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return 0


def rss_mb(pid: int) -> float:
    """Resident set size of the one process."""
    num_bytes: int = psutil.Process(pid).memory_info().rss
    return num_bytes / 1e6


def voluntary_switches(pid: int) -> int:
    """Voluntary context switches of all threads of the one process: each is a wake-up. Linux only."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        total += int(fields["voluntary_ctxt_switches"])
    return total
