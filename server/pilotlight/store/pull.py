"""One pull from beginning to end: download in a process of its own, test in a worker, activate.

Knows nothing of HTTP and terminals; whoever asks hears events.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import msgspec
import structlog
from anyio import to_thread
from msgspec import Struct

from pilotlight.core import Model
from pilotlight.errors import Error, PullFailed, RuntimeMissing, SmokeFailed
from pilotlight.signals import NEW_GROUP
from pilotlight.store.disk import usable
from pilotlight.store.events import Done, Event, Failed, Installed, Job, Resolved, Testing, decode
from pilotlight.store.manifest import Version
from pilotlight.store.smoke import Smoke
from pilotlight.store.store import Store

LONGEST_LINE = 1 << 20

log = structlog.get_logger()


class Puller(Struct, frozen=True):
    """Gets models into a store. `model_at` makes a model of a name and a path, with its settings."""

    store: Store
    smoke: Smoke
    model_at: Callable[[str, Path], Model]

    async def pull(self, job: Job, report: Callable[[Event], None]) -> Done | Failed:
        """Report what happens, and return how it ended. Cancelling it keeps what has come."""
        try:
            with usable(self.store.root):
                async with _left_in_a_thread() as kept:
                    end = await self._download(job, partial(self._hear, report, kept))
                    return await self._activate(end, report) if isinstance(end, Installed) else end
        except Error as exc:
            return failure(exc)

    async def _hear(self, report: Callable[[Event], None], kept: ExitStack, event: Event) -> None:
        """Pass on what happens. Once it is known which version comes, nobody prunes it till it is active."""
        if isinstance(event, Resolved):
            keeping = self.store.keeping(event.model, event.version)
            await to_thread.run_sync(kept.enter_context, keeping)
        report(event)

    async def _download(self, job: Job, hear: Callable[[Event], Awaitable[None]]) -> Installed | Failed:
        line = _line(job)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "pilotlight.store.fetch",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=LONGEST_LINE,
            # Ctrl-C in a terminal goes to the whole group; it ends when its stdin closes.
            start_new_session=True,
            creationflags=NEW_GROUP,
        )
        try:
            return await self._listen(process, line, hear)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)

    async def _listen(
        self, process: Process, line: bytes, hear: Callable[[Event], Awaitable[None]]
    ) -> Installed | Failed:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(line)
        last_words = asyncio.ensure_future(_last_words(process.stderr))
        end: Event | None = None
        try:
            async for said in process.stdout:
                end = decode(said)
                if not isinstance(end, Failed):
                    await hear(end)
        except ValueError as exc:  # of a line that is too long, too
            raise PullFailed("what the download process says makes no sense; what has come is kept") from exc
        words = await last_words
        if isinstance(end, Installed | Failed):
            return end
        ended = "the download process ended before its time; what has come is kept"
        return failure(PullFailed(f"{ended} ({words})" if words else ended))

    async def _activate(self, new: Installed, report: Callable[[Event], None]) -> Done | Failed:
        record = await to_thread.run_sync(self.store.record, new.model)
        if record.active == new.version:
            return Done(new.model, new.version, record.previous, is_new=False)
        versions = await to_thread.run_sync(self.store.versions, new.model)
        version = next((one for one in versions if one.id == new.version), None)
        if version is None:
            raise PullFailed(
                f"version {new.version} of {new.model} was deleted before it was tested; pull it again"
            )
        report(Testing(new.model, new.version))
        kept = f"; version {record.active} stays active" if record.active else "; it is not activated"
        warning = None
        try:
            await self.smoke.test(await to_thread.run_sync(self._model, new.model, version), version.id)
        except SmokeFailed as exc:
            await to_thread.run_sync(self.store.refuse, new.model, version, exc.message)
            return failure(SmokeFailed(exc.message + kept))
        except RuntimeMissing as exc:
            warning = f"not tested: {exc.message}"
        except Error as exc:
            untested = f"{exc.message}; the new version is here, and a pull tests it again{kept}"
            return Failed(untested, exc.code, exc.status)
        return await to_thread.run_sync(self._commit, version, new.model, warning)

    def _model(self, name: str, version: Version) -> Model:
        return self.model_at(name, self.store.path(name, version))

    def _commit(self, version: Version, name: str, warning: str | None) -> Done:
        self.store.activate(name, version)
        record = self.store.record(name)
        log.info("model pulled", model=name, version=version.id, previous=record.previous)
        return Done(name, version.id, record.previous, is_new=True, warning=warning)


@asynccontextmanager
async def _left_in_a_thread() -> AsyncIterator[ExitStack]:
    """What is entered here is left behind the block. That is disk work, as entering is: the disk may hang."""
    kept = ExitStack()
    try:
        yield kept
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(kept.close)


def failure(error: Error) -> Failed:
    """The event that tells of an error."""
    return Failed(error.message, error.code, error.status)


def _line(job: Job) -> bytes:
    """What the download process is told. Raises `PullFailed` for a folder or a name that is no text."""
    try:
        return msgspec.json.encode(job) + b"\n"
    except UnicodeEncodeError as exc:
        raise PullFailed(f"{exc.object[:200]!a} is no UTF-8, so nothing is pulled") from exc


async def _last_words(stderr: asyncio.StreamReader) -> str:
    """The last line of what a process writes; all of it is read, or it would stop."""
    last = b""
    while data := await stderr.read(1 << 16):
        last = (last + data).rstrip()[-2000:]
    return last.rpartition(b"\n")[2].decode(errors="replace")


async def _end(process: Process) -> None:
    """It ends by itself when its stdin closes; killing is for one that is stuck in the kernel."""
    assert process.stdin is not None
    process.stdin.close()
    with anyio.move_on_after(2):
        await process.wait()
        return
    process.kill()
    await process.wait()
