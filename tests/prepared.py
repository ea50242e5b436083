"""`pilotlight` in a process that has imported it already: a fork of one that did that and then waits.

Importing is most of what a short command or the start of a daemon takes, and it is the same every time. That
they start by themselves, too, is what `cli/test_afresh.py` and all tests whose daemon has a fault show.
"""

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from pilotlight import cli
from pilotlight.__main__ import main

CONTEXT = multiprocessing.get_context("forkserver")

COMMANDS = [f"pilotlight.cli.{module.name}" for module in pkgutil.iter_modules(cli.__path__)]

# `pilotlight.log` comes before all that imports structlog, as in `pilotlight serve`.
CONTEXT.set_forkserver_preload(["__main__", "prepared", "pilotlight.log", "pilotlight.daemon", *COMMANDS])


class Prepared:
    """One process, in a session of its own; what is here does what it does in `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        streams: Sequence[int],
        folder: Path | None = None,
    ) -> None:
        """Run `pilotlight` with these arguments; `streams` are its stdin, stdout and stderr."""
        given = (tuple(arguments), dict(environ), [_Stream(one) for one in streams], folder or Path.cwd())
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


def _run(arguments: Sequence[str], environ: Mapping[str, str], streams: Sequence[int], folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = ["pilotlight", *arguments]
    main()
