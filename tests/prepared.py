"""`pilotlight` in a process that has imported it already: a fork of one that did that and then waits.

Importing is most of what a short command, a download or the start of a daemon takes, and it is the same
every time. That they start by themselves, too, is what `cli/test_afresh.py`, `daemon/test_pulling.py` and all
tests whose daemon runs `serving.PROGRAM` show.
"""

import importlib
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from pilotlight import cli
from pilotlight.__main__ import main
from pilotlight.cli import bandwidth

# Commands that measure memory are many; `cli/test_afresh.py` has it measured for as long as it takes.
bandwidth.PATIENCE_S, bandwidth.NUM_BYTES = 0.0, 8 * 2**20

CONTEXT = multiprocessing.get_context("forkserver")

COMMANDS = [f"pilotlight.cli.{module.name}" for module in pkgutil.iter_modules(cli.__path__)]

DOWNLOADS = ["pilotlight.store.fetch", "httpx2", "tqdm.auto", "yaml"]
"""With what `huggingface_hub` imports, but not that: it reads the environment when it is imported."""

# `pilotlight.log` comes before all that imports structlog, as in `pilotlight serve`.
CONTEXT.set_forkserver_preload(
    ["__main__", "prepared", "pilotlight.log", "pilotlight.daemon", *COMMANDS, *DOWNLOADS]
)


class Prepared:
    """One process, in a session of its own; what is here does what it does in `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        streams: Sequence[int],
        folder: Path | None = None,
        program: str | None = None,
    ) -> None:
        """Run `pilotlight`, or this program, with these arguments; `streams` are stdin, stdout and stderr."""
        theirs = [_Stream(one) for one in streams]
        given = (tuple(arguments), dict(environ), theirs, folder or Path.cwd(), program)
        self._process = CONTEXT.Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("pilotlight", timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Stream:
    """An open file that goes along to the process, where it is a number again."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        return _arrived, (reduction.DupFd(self._number),)


def _arrived(stream: Any) -> int:
    number: int = stream.detach()
    return number


def _run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    streams: Sequence[int],
    folder: Path,
    program: str | None,
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = ["pilotlight", *arguments]
    # A process that was forked here would have others start its own.
    multiprocessing.set_start_method(None, force=True)
    _heed(environ)
    if program is None:
        main()
    else:
        exec(program, {"__name__": "__main__"})


def _heed(environ: Mapping[str, str]) -> None:
    """What Python itself does at its start, as far as tests ask for it."""
    if environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.dont_write_bytecode = True
    if path := environ.get("PYTHONPATH"):
        sys.path[:0] = path.split(os.pathsep)
        sys.modules.pop("sitecustomize", None)
        with suppress(ModuleNotFoundError):
            importlib.import_module("sitecustomize")
