"""The file by which other programs find a running daemon, and who holds a port if it is not us.

Knows nothing of what the daemon serves.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec import Struct, to_builtins

from pilotlight import __version__
from pilotlight.registry import keys, private_file


class Running(Struct, frozen=True):
    """A daemon that said where it is; `started` is Unix seconds, `key_file` has the key to all of it."""

    url: str
    pid: int
    version: str
    started: float
    key_file: str


class Discovery:
    """Owns `daemon.json` in the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._before: Running | None = None
        self._file = state_dir / "daemon.json"
        self._key_file = keys.admin_file(state_dir)

    def write(self, url: str) -> None:
        """Say that this process answers at `url`; readers see the old file or the new one, never a part.

        Raises `OSError`.
        """
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._before = self.read()
        self._put(Running(url, os.getpid(), __version__, time.time(), str(self._key_file)))

    def remove(self) -> None:
        """Take our own entry back: a daemon that was there before, and still lives, has its own again. One
        that started after us keeps its own. Safe to call again."""
        if (running := self._load()) is None or running.pid != os.getpid():
            return
        with suppress(OSError):  # a disk that is full or read-only: soon we are a dead process
            if self._before is not None and _is_alive(self._before):
                self._put(self._before)
            else:
                self._file.unlink(missing_ok=True)

    def read(self) -> Running | None:
        """The daemon that wrote the file, if it still lives; a damaged file counts as none."""
        running = self._load()
        return running if running is not None and _is_alive(running) else None

    def _put(self, running: Running) -> None:
        private_file.write(self._file, json.dumps(to_builtins(running)).encode())

    def _load(self) -> Running | None:
        try:
            return Running(**json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def holder(port: int) -> str | None:
    """Who listens on a TCP port, as "name (pid 123)"; None when the system does not tell."""
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pid = next((c.pid for c in listening if c.laddr and c.laddr.port == port), None)
        return None if pid is None else f"{psutil.Process(pid).name()} (pid {pid})"
    except (psutil.Error, OSError):
        return None


def _is_alive(running: Running) -> bool:
    """The process lives and is older than its entry: a reused pid belongs to a younger one."""
    try:
        # A minute of slack: the clock may have been set since.
        return psutil.Process(running.pid).create_time() < running.started + 60
    except (psutil.Error, ValueError, TypeError):
        return False
