"""The daemon's end of one worker process: start it, load it, talk to it, see it end.

Owns the process and its pipes. Knows nothing of requests beyond their frames, and never decides whether a
worker should live.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Self

import anyio
import msgspec
import structlog

from pilotlight.core import Archive, Model, WorkerInfo
from pilotlight.signals import NEW_GROUP, death_of
from pilotlight.worker import heap
from pilotlight.worker.priority import Priority, scheduling
from pilotlight.worker.protocol import (
    PROTOCOL_VERSION,
    Finish,
    FrameError,
    Hello,
    Load,
    LoadFailed,
    Measured,
    Paused,
    Progress,
    Ready,
    Saved,
    Splitter,
    State,
    Step,
    Threads,
    ToDaemon,
    ToWorker,
    decode_to_daemon,
    encode,
)

HELLO_S = 60.0
"""A worker says hello before it imports anything heavy: in 0.2 s, on a busy machine a hundred times that."""

STOP_S = 2.0
"""From closing stdin to killing: a worker ends at once, unless native code is stuck in the kernel."""

SAVE_S = 2.0
"""Given to a worker to save its conversations before it ends; others may be waiting for its memory."""

SAVE_LATE_S = 0.5
"""More than that until it is ended as it is: it looks at the time between two writes."""

READ_BYTES = 1 << 18

Said = Step | Paused | Threads | Measured | State | Saved
"""What a worker says once it is ready."""

log = structlog.get_logger()


class WorkerEndedError(Exception):
    """The process ended or broke the protocol. `crash` says of what, if native code died,
    and `is_import` says that it was the runtime's library, before any file was opened.
    `is_killed` says that somebody else ended it."""

    def __init__(
        self, message: str, crash: str | None = None, is_import: bool = False, is_killed: bool = False
    ) -> None:
        super().__init__(message)
        self.crash = crash
        self.is_import = is_import
        self.is_killed = is_killed


class LoadRefusedError(Exception):
    """The worker says it cannot load the model; `missing` if its library is not installed."""

    def __init__(self, reason: str, missing: bool) -> None:
        super().__init__(reason)
        self.missing = missing


class Worker:
    """One child process holding one model."""

    def __init__(self, model: Model, process: Process) -> None:
        self.model = model
        self.info: WorkerInfo | None = None
        self.pid = process.pid
        """What a virtual environment starts on Windows starts the worker, which says who it is."""
        self._process = process
        self._splitter = Splitter()
        # One generator for the worker's whole life: a second one would lose what the first has read.
        self._messages = self._receive()
        self._stderr = asyncio.ensure_future(self._drain_stderr())
        self._last_words = ""
        self._is_imported = False
        self._has_archive = False

    @classmethod
    async def spawn(cls, model: Model) -> Self:
        """Start the process; it has not loaded anything yet."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Not the working directory first on the path: a file there must not become a module here.
            "-P",
            "-m",
            "pilotlight.worker.child",
            model.runtime,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=READ_BYTES,
            env=_environment(os.environ),
            # Ctrl-C in a terminal goes to the whole group, and draining needs the workers alive.
            start_new_session=True,
            creationflags=NEW_GROUP,
        )
        return cls(model, process)

    async def load(
        self,
        mode: str,
        progress: Callable[[Progress], None],
        load_s: float,
        archive: Archive | None = None,
        measures_threads: bool = False,
    ) -> WorkerInfo:
        """Wait for the hello, then for the loaded model. Raises
        `LoadRefusedError`, `WorkerEndedError`, `TimeoutError`."""
        model = self.model
        with anyio.fail_after(min(HELLO_S, load_s)):
            hello = await anext(self._messages)
        if not isinstance(hello, Hello) or hello.protocol != PROTOCOL_VERSION:
            raise WorkerEndedError(f"worker opened with {hello!r}; expected protocol {PROTOCOL_VERSION}")
        self.pid = hello.pid
        limits = model.context, model.parallel, model.threads
        load = Load(str(model.path), mode, *limits, model.chat_template, model.provider, model.loading)
        self.send(msgspec.structs.replace(load, archive=archive, measures_threads=measures_threads))
        self._has_archive = archive is not None
        with anyio.fail_after(load_s):
            async for message in self._messages:
                match message:
                    case Progress():
                        self._is_imported = True
                        progress(message)
                    case LoadFailed(reason, missing):
                        raise LoadRefusedError(reason, missing)
                    case Ready(info):
                        self.info = info
                        return info
                    case _:
                        raise WorkerEndedError(f"worker sent {type(message).__name__} while loading")
        raise AssertionError("the messages end with an error")

    async def run(self, on_message: Callable[[Said], None]) -> WorkerEndedError:
        """Hand every message over until the process ends; returns how it ended."""
        try:
            async for message in self._messages:
                if not isinstance(message, Said):
                    return WorkerEndedError(f"worker sent {type(message).__name__} after it was ready")
                on_message(message)
        except WorkerEndedError as end:
            return end
        raise AssertionError("the messages end with an error")

    def send(self, message: ToWorker) -> None:
        """Queue a frame. A worker that has ended ignores it: its end is told by `run`."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(encode(message))

    def set_priority(self, priority: Priority) -> None:
        """What it is to the system beside other programs, from now on."""
        scheduling().set(self.pid, priority)

    def finish(self) -> bool:
        """Have it save its conversations within `SAVE_S` and end; False if it has none, or nowhere to."""
        can_save = self._has_archive and self.info is not None
        if can_save:
            self.send(Finish(SAVE_S))
        return can_save

    async def stop(self, *, saves: bool = False) -> None:
        """End the process and wait: ask by closing stdin, then kill. It may save its conversations before.
        Safe to call again, and when it ended itself."""
        assert self._process.stdin is not None
        with anyio.CancelScope(shield=True):
            if saves and self.finish():
                with anyio.move_on_after(SAVE_S + SAVE_LATE_S):
                    await self._process.wait()
            self._process.stdin.close()
            with anyio.move_on_after(STOP_S):
                await self._process.wait()
            self.kill()
            await self._process.wait()
            await self._stderr

    def kill(self) -> None:
        """End it now, without waiting."""
        if self._process.returncode is None:
            self._process.kill()

    async def _receive(self) -> AsyncGenerator[ToDaemon, None]:
        """Every message; then raises `WorkerEndedError`."""
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(READ_BYTES):
            try:
                for body in self._splitter.feed(data):
                    yield decode_to_daemon(body)
            except FrameError as exc:
                self.kill()
                raise WorkerEndedError(str(exc)) from exc
        raise await self._ended()

    async def _ended(self) -> WorkerEndedError:
        """How the process ended, once its stdout closed."""
        with anyio.move_on_after(STOP_S):
            await self._process.wait()
        self.kill()
        code = await self._process.wait()
        await self._stderr
        words = f": {self._last_words}" if self._last_words else ""
        if (death := death_of(code)) is None:
            return WorkerEndedError(f"worker exited with {code}{words}")
        cause = death.cause
        crash = cause if death.is_crash else None
        is_killed = cause == "SIGKILL"
        return WorkerEndedError(f"worker died of {cause}{words}", crash, not self._is_imported, is_killed)

    async def _drain_stderr(self) -> None:
        """Into the log, line by line; a full pipe would stop the worker."""
        assert self._process.stderr is not None
        rest = b""
        while data := await self._process.stderr.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._note(line)
            rest = rest[-4096:]
        self._note(rest)

    def _note(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip()[:500]:
            self._last_words = text
            log.info("worker stderr", model=self.model.name, pid=self.pid, line=text)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Of a worker, unless the user has decided. numpy's OpenBLAS starts a thread for each of the machine's
    processors when it is imported, and nothing of ours multiplies with it."""
    return {"OPENBLAS_NUM_THREADS": "1", **heap.with_huge_pages(environ)}
