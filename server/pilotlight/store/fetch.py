"""The download process: told on stdin what to get, it says on stdout what happens, one event per line.

A process of its own, because its libraries need 40 MB and half a second, and because it can be ended at any
moment: it ends when its stdin closes, and what has come by then is kept.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import msgspec

from pilotlight.errors import BadRequest, Error, NoSpace
from pilotlight.store import transfer
from pilotlight.store.disk import usable
from pilotlight.store.events import Event, Failed, Installed, Job, Progress, Resolved, Waiting, encode
from pilotlight.store.locks import alone_at
from pilotlight.store.manifest import File
from pilotlight.store.plan import Plan, plan_hub, plan_url
from pilotlight.store.reference import UrlReference, parse
from pilotlight.store.retry import Patience, persist
from pilotlight.store.store import Store

PERIOD_S = 0.2
"""Between two reports of progress."""


def main() -> None:
    """Do the job of the first line of stdin; exit code 0 if its last event is `Installed`."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Whatever libraries print goes to stderr: stdout is for events.
    out = os.dup(1)
    os.dup2(2, 1)

    def emit(event: Event) -> None:
        os.write(out, encode(event) + b"\n")

    try:
        Fetch(job, emit).run()
    except Error as error:
        emit(Failed(error.message, error.code, error.status))
        sys.exit(1)


class Fetch:
    """One version of one model, from the reference to files in the store."""

    def __init__(self, job: Job, emit: Callable[[Event], None]) -> None:
        self._job = job
        self._emit = emit
        self._store = Store(Path(job.store_dir))
        self._patience = Patience(job.stall_s, job.retry_s, emit)
        self._have: dict[str, int] = {}
        self._reported = 0.0

    def run(self) -> None:
        """Raises an `Error` of ours for whatever keeps it from coming."""
        with usable(self._store.root):
            self._run(self._plan())

    def _run(self, plan: Plan) -> None:
        self._store.check_free(plan.name)
        missing = [file for file in plan.version.files if self._store.find(file) is None]
        self._have = {
            file.path: self._num_bytes(file, is_missing=file in missing) for file in plan.version.files
        }
        bytes_missing = max(0, plan.version.bytes - sum(self._have.values()))
        if bytes_missing > (free := self._store.bytes_free()):
            raise NoSpace(
                f"{plan.name} needs {bytes_missing / 2**20:,.0f} MiB more, and {free / 2**20:,.0f} MiB "
                f"are free in {self._store.root}; `pilotlight prune` may help"
            )
        version = plan.version
        resolved = version.id, version.revision, len(version.files), version.bytes, bytes_missing
        self._emit(Resolved(plan.name, *resolved))
        with ExitStack() as locks, transfer.client(self._job.stall_s) as client:
            loose = {file.digest: file for file in version.files if self._is_loose(file)}
            # In one order for everybody, so that two who want the same files never wait for each other.
            for _, file in sorted(loose.items()):
                others = Waiting(f"another process is downloading {file.path}")
                locks.enter_context(alone_at(self._store.part(file.digest), partial(self._emit, others)))
                self._get(file, plan, client)
            self._store.install(plan.name, msgspec.structs.replace(version, pulled=time.time()))
        self._emit(Installed(plan.name, version.id))

    def _plan(self) -> Plan:
        reference = parse(self._job.reference)
        if isinstance(reference, UrlReference):
            plan = plan_url(reference)
            if not self._job.name:
                self._check_origin(plan.name, reference)
        else:
            found = reference
            plan = persist(lambda: plan_hub(found, self._job.stall_s), lambda: 0, self._patience)
        return replace(plan, name=self._job.name or plan.name)

    def _check_origin(self, name: str, reference: UrlReference) -> None:
        """Files of one name from two places are two models."""
        for record in self._store.records():
            if record.name == name and record.origin.partition("#")[0] != reference.url:
                raise BadRequest(
                    f"{name} was pulled from elsewhere; `pilotlight rm {name}` first, or give this one "
                    "another name: a [[model]] table with the URL as its source"
                )

    def _is_loose(self, file: File) -> bool:
        """It is in no version yet, come or not: `prune` would take it."""
        return self._store.find(file) in (None, self._store.arrived(file.digest))

    def _num_bytes(self, file: File, *, is_missing: bool) -> int:
        """What is here of it."""
        part = self._store.part(file.digest)
        return (part.stat().st_size if part.exists() else 0) if is_missing else file.size or 0

    def _get(self, file: File, plan: Plan, client: httpx.Client) -> None:
        if self._store.find(file) is not None:  # another process was faster
            return
        if self._have[file.path]:
            self._emit(Waiting(f"reading what came of {file.path} before"))
        part = transfer.Part(self._store.part(file.digest), file)
        try:
            one = transfer.Transfer(file, part, plan.urls[file.path], plan.headers, self._patience)
            one.run(client, lambda done, size: self._report(file, done, plan.version.bytes or size))
        finally:
            part.close()
        part.path.rename(self._store.arrived(file.digest))

    def _report(self, file: File, num_bytes: int, total: int) -> None:
        self._have[file.path] = num_bytes
        now = time.monotonic()
        if now - self._reported >= PERIOD_S or num_bytes in (file.size, total):
            self._reported = now
            self._emit(Progress(file.path, sum(self._have.values()), total))


def _end_with_parent() -> None:
    """Nobody reads on, or somebody changed their mind: end now, from whatever it is doing."""
    # Not through sys.stdin: a thread that reads there is in the way when the process ends by itself.
    while os.read(0, 1 << 10):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
