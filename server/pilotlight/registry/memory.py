"""Reads what memory this machine has; inside a container, what of it we may use.

Linux: /proc and the memory cgroups (both versions) under an injectable root; elsewhere psutil. Decides
nothing.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec import Struct

from pilotlight.registry.budget import Memory
from pilotlight.runtimes import cgroups


class _Files(Struct, frozen=True):
    """What one version of memory cgroups calls its files, and pages of files in `memory.stat`."""

    limits: tuple[str, ...]
    usage: str
    cache: tuple[str, ...]


_V2 = _Files(
    # Beyond the first the kernel slows a group down, and beyond the second it ends somebody.
    ("memory.high", "memory.max"),
    "memory.current",
    ("inactive_file", "active_file"),
)
_V1 = _Files(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


_last: dict[Path, Memory] = {}
"""What was read, by root."""


def read(root: Path = Path("/")) -> Memory:
    """The tightest of the machine itself and every cgroup we are in; what it was before, if no descriptor is
    left to look with."""
    try:
        _last[root] = _read(root)
    except OSError:
        if root not in _last:
            raise
    return _last[root]


def _read(root: Path) -> Memory:
    memory = _machine(root)
    total, available = memory.bytes_total, memory.bytes_available
    for files, folder in groups(root):
        with suppress(OSError, ValueError):  # no limit here
            limit = min(_limits(folder, files))
            used = int((folder / files.usage).read_text()) - _cache(folder, files)
            total, available = min(total, limit), min(available, max(0, limit - used))
    return Memory(total, available)


def free_share(root: Path = Path("/")) -> float:
    """Of the machine's memory, the part that holds nothing, not even pages of files; 0 where nobody tells."""
    try:
        kib = _meminfo(root)
    except OSError:
        return 0.0
    return kib["MemFree"] / kib["MemTotal"]


def groups(root: Path = Path("/")) -> Iterator[tuple[_Files, Path]]:
    """The memory cgroups we are in, innermost first; a container may see only the outermost as its root."""
    for version, folder in cgroups.folders("memory", root):
        yield _V1 if version == 1 else _V2, folder


def _machine(root: Path) -> Memory:
    try:
        kib = _meminfo(root)
    except OSError:
        found = psutil.virtual_memory()
        return Memory(int(found.total), int(found.available))
    return Memory(kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024)


def _meminfo(root: Path) -> dict[str, int]:
    lines = (root / "proc/meminfo").read_text().splitlines()
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}


def _limits(folder: Path, files: _Files) -> Iterator[int]:
    """Those that the group has."""
    for name in files.limits:
        with suppress(OSError, ValueError):  # no such file, or "max"
            yield int((folder / name).read_text())


def _cache(folder: Path, files: _Files) -> int:
    """Bytes of file pages that would be given up before anything is killed."""
    lines = (line.partition(" ") for line in (folder / "memory.stat").read_text().splitlines())
    return sum(int(value) for name, _, value in lines if name in files.cache)
