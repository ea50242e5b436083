"""This process, as the system has it: its stdout, how much it may open, what it leaves behind when it
crashes, and that it ends."""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger()

MOST_DESCRIPTORS = 10240
"""More than clients need, and the most that macOS takes (`OPEN_MAX`). Linux may let us have a billion, and
some programs close at their start all that they may have open."""


def leave_within(seconds: float, code: int) -> None:
    """End the process then if it has not ended by itself: it would wait for ever for what hangs in the
    kernel, a thread at a disk that does not answer, or a worker in a driver."""
    leaving = threading.Timer(seconds, _leave, [code])
    leaving.daemon = True
    leaving.start()


def _leave(code: int) -> None:
    try:
        log.error("a thread or a worker that hangs is left behind")
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def say(line: str) -> None:
    """On stdout, if that can be written to: not to a disk that is full, nor a pipe that nobody reads any
    more."""
    try:
        print(line, flush=True)
    except OSError:
        # The line stays in the buffer: tried again at the end, it would make the exit code Python's own.
        with suppress(OSError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def raise_descriptors() -> None:
    """Have as many as the system lets us, as each connection is one: what it gives by itself, 1024 (Linux) or
    256 (macOS), is for those who call `select()`. Workers inherit it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if resource.RLIM_INFINITY != soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def dump_no_core() -> None:
    """Neither of us nor of workers, which inherit it: all prompts would be on the disk."""
    if sys.platform == "win32":
        return
    import resource

    # Not 0: where core_pattern is a pipe, as to systemd-coredump, 1 is the only limit that the kernel heeds
    # (`do_coredump`). No file is so small, either.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = int(hard != 0)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    # Where no limit but 0 may be set, at least none of the memory goes there.
    with suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0")
