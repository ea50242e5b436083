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
from serving import NO_BYTECODE

Event = dict[str, Any]

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
        self, job: Job, environ: dict[str, str], limit_bytes: int | None, disk_bytes: int | None
    ) -> None:
        """`limit_bytes` is the largest file it may write; `disk_bytes` makes its store a disk that small."""

        def limit() -> None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

        command = [sys.executable, "-m", "pilotlight.store.fetch"]
        if disk_bytes:
            Path(job.store_dir).mkdir()
            mount = f'mount -t tmpfs -o size={disk_bytes} tmpfs "$0" && exec "$@"'
            command = [*NAMESPACE, "sh", "-c", mount, job.store_dir, *command]
        self.process = subprocess.Popen(
            command,
            env=environ | (NO_BYTECODE if limit_bytes else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=limit if limit_bytes else None,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(job) + b"\n")
        self.process.stdin.flush()

    def __iter__(self) -> Iterator[Event]:
        assert self.process.stdout is not None
        yield from map(json.loads, self.process.stdout)

    def until(self, kind: str) -> Event:
        """The next event of this kind."""
        return next(event for event in self if event["event"] == kind)

    def end(self) -> tuple[list[Event], str]:
        """The rest of its events, and what it wrote to its log."""
        events = list(self)
        assert self.process.stderr is not None
        words = self.process.stderr.read().decode()
        self.process.wait(20)
        return events, words

    def cancel(self) -> None:
        """As the daemon does it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


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
