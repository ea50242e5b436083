"""The download process, run for real: its events, its end, and what is on the disk afterwards."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pilotlight.store.events import Job
from pilotlight.store.manifest import Record, encode
from pilotlight.store.paths import folder_name
from pilotlight.store.store import Store
from prepared import Prepared
from serving import NO_BYTECODE

Event = dict[str, Any]

PROGRAM = "from pilotlight.store.fetch import main; main()"

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d)); "

NAMESPACE = ["unshare", "--map-root-user", "--mount"]
"""What is mounted in it is gone with the process."""


def occupy(store: Store, name: str, other: str) -> None:
    """Put another model where this one's folder is, as it is on a file system to which both names are one."""
    folder = store.root / "models" / folder_name(name)
    folder.mkdir(mode=0o700, parents=True)
    (folder / "model.json").write_bytes(encode(Record(other, "")))


class Download:
    """One download process; its events as they come."""

    def __init__(
        self,
        job: Job,
        environ: dict[str, str],
        *,
        limit_bytes: int | None = None,
        disk_bytes: int | None = None,
        is_fresh: bool = False,
    ) -> None:
        """`limit_bytes` is the largest file it may write; `disk_bytes` makes its store a disk that small.

        With such a disk, or if it is to be fresh, it is started as the daemon does; others are `Prepared`.
        """
        stdin, given = os.pipe()
        told, stdout = os.pipe()
        words, stderr = os.pipe()
        self._given, self._told, self._words = os.fdopen(given, "wb"), os.fdopen(told), os.fdopen(words)
        with os.fdopen(stdin), os.fdopen(stdout, "w"), os.fdopen(stderr, "w"):
            streams = (stdin, stdout, stderr)
            self.process: Prepared | subprocess.Popen[bytes]
            if disk_bytes or is_fresh:
                self.process = _fresh(job, environ, streams, disk_bytes)
            elif limit_bytes:
                program = LIMITED % (limit_bytes, limit_bytes) + PROGRAM
                self.process = Prepared((), environ | NO_BYTECODE, streams, program=program)
            else:
                self.process = Prepared((), environ, streams, program=PROGRAM)
        self._given.write(msgspec.json.encode(job) + b"\n")
        self._given.flush()

    def __iter__(self) -> Iterator[Event]:
        yield from map(json.loads, self._told)

    def until(self, kind: str) -> Event:
        """The next event of this kind."""
        return next(event for event in self if event["event"] == kind)

    def end(self) -> tuple[list[Event], str]:
        """The rest of its events, and what it wrote to its log."""
        events = list(self)
        words = self._words.read()
        self.process.wait(20)
        return events, words

    def cancel(self) -> None:
        """As the daemon does it."""
        self._given.close()
        self.process.wait(20)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        for pipe in (self._given, self._told, self._words):
            pipe.close()


def _fresh(
    job: Job, environ: dict[str, str], streams: tuple[int, int, int], disk_bytes: int | None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pilotlight.store.fetch"]
    if disk_bytes:
        Path(job.store_dir).mkdir()
        mount = f'mount -t tmpfs -o size={disk_bytes} tmpfs "$0" && exec "$@"'
        command = [*NAMESPACE, "sh", "-c", mount, job.store_dir, *command]
    stdin, stdout, stderr = streams
    return subprocess.Popen(command, env=environ, stdin=stdin, stdout=stdout, stderr=stderr)


def names(folder: Path) -> list[str]:
    """Every file below the folder, but for the store's own lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "store.lock")
    return sorted(os.path.relpath(path, folder) for path in found)


def can_mount() -> bool:
    """This machine lets a process have mounts of its own."""
    try:
        return (
            subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode == 0
        )
    except FileNotFoundError:
        return False
