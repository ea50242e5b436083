"""The file by which other programs find a running daemon, and who holds a port if it is not us.

Knows nothing of what the daemon serves.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec import Struct, convert, to_builtins
from msgspec.structs import replace

from pilotlight import __version__
from pilotlight.registry import keys, private_file

_STARTTIME = 22 - 3
"""Where proc_pid_stat(5) has it, behind the name; in ticks."""


PRIVATE = "_PILOTLIGHT_PRIVATE"
"""In the environment of a daemon that ends with who started it, when its stdin does, and so is nobody else's
to find."""


NUM_ELSEWHERE = 8
"""So many entries of other places are kept, where nobody but their daemons takes them back."""


class Place(Struct, frozen=True):
    """Where a pid says which process is meant, and a local URL which daemon."""

    machine: str
    boot: str
    pids: str
    """The namespace: that of a container is its own."""

    def is_same(self, other: "Place") -> bool:
        """Also before the machine was started anew: what ran then is known to have ended."""
        return self.pids == other.pids and (self.machine == other.machine or self.boot == other.boot)


class Running(Struct, frozen=True, omit_defaults=True):
    """A daemon that said where it is; `started` is Unix seconds, `key_file` has the key to all of it."""

    url: str
    pid: int
    version: str
    started: float
    key_file: str
    born: str = ""
    """Which of all processes that ever had this pid; empty if an older daemon wrote it."""
    place: Place | None = None
    """None where the system tells none, and if an older daemon wrote it."""
    before: "tuple[Running, ...]" = ()
    """Those that were there before with the same state directory, the newest first."""


class Discovery:
    """Owns `daemon.json` in the state directory, which other machines and containers may share with us."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "daemon.json"
        self._key_file = keys.admin_file(state_dir)

    def write(self, url: str) -> None:
        """Say that this process answers at `url`; readers see the old file or the new one, never a part.

        Raises `OSError`.
        """
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pid, key_file = os.getpid(), str(self._key_file)
        ours = Running(url, pid, __version__, time.time(), key_file, _born(pid), _place())
        self._put([ours, *_others(self._entries())])

    def remove(self) -> None:
        """Take our own entry back; other daemons that live, older or newer ones, keep theirs. Safe to call
        again."""
        entries = self._entries()
        if any(entry.pid == os.getpid() for entry in _here(entries)):
            with suppress(OSError):  # a disk that is full or read-only: soon we are a dead process
                self._put(_others(entries))

    def read(self) -> Running | None:
        """The newest daemon that still lives; a damaged file counts as none."""
        return next(self.living(), None)

    def living(self) -> Iterator[Running]:
        """All that live here, the newest first. At the URL of one elsewhere we would meet a stranger."""
        return filter(_is_alive, _here(self._entries()))

    def _put(self, entries: list[Running]) -> None:
        if not entries:
            self._file.unlink(missing_ok=True)
            return
        newest, *before = entries
        running = replace(newest, before=tuple(before))
        private_file.write(self._file, json.dumps(to_builtins(running)).encode())

    def _entries(self) -> list[Running]:
        """Of the living and the dead, the newest first."""
        try:
            newest = convert(json.loads(self._file.read_text(encoding="utf-8")), Running)
        except (OSError, ValueError, RecursionError):
            return []
        return [replace(newest, before=()), *newest.before]


def holder(port: int) -> str | None:
    """Who listens on a TCP port, as "name (pid 123)"; None when the system does not tell."""
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pid = next((c.pid for c in listening if c.laddr and c.laddr.port == port), None)
        return None if pid is None else f"{psutil.Process(pid).name()} (pid {pid})"
    except (psutil.Error, OSError):
        return None


def _here(entries: list[Running]) -> list[Running]:
    """Those of our place, or of none."""
    place = _place()
    return [entry for entry in entries if entry.place is None or (place and place.is_same(entry.place))]


def _others(entries: list[Running]) -> list[Running]:
    """What is not ours: those that live here, and of other places the newest, dead or alive."""
    here = _here(entries)
    living = [entry for entry in here if entry.pid != os.getpid() and _is_alive(entry)]
    return living + [entry for entry in entries if entry not in here][:NUM_ELSEWHERE]


def _is_alive(running: Running) -> bool:
    """The process lives, and its pid was not given to another one."""
    if running.born:
        return _born(running.pid) == running.born
    try:
        # A younger one has it else. A minute of slack: the clock may have been set since.
        return psutil.Process(running.pid).create_time() < running.started + 60
    except (psutil.Error, ValueError):
        return False


def _place() -> Place | None:
    """Ours; None on a system that does not tell."""
    try:
        pids = os.readlink("/proc/self/ns/pid")
        boot = _boot()
    except OSError:
        return None
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    return Place(machine or boot, boot, pids)


def _boot() -> str:
    """Which start of the machine this is, on Linux. Raises `OSError`."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _born(pid: int) -> str:
    """When the process began, in words that setting the clock does not change; empty if there is none.

    On Linux a time since the machine was started, and which start that was: services get the same pid at
    nearly the same time after each. Elsewhere the system has noted the time of then.
    """
    try:
        if sys.platform != "linux":
            return f"{psutil.Process(pid).create_time():.0f}"
        # The program's name comes first, in parentheses, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{_boot()} {int(fields[_STARTTIME])}"
    except (psutil.Error, OSError, ValueError):
        return ""
