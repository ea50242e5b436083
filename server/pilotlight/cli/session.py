"""A daemon to talk to: the running one, else one of our own for as long as the session lasts."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from pilotlight.cli.client import Client, find
from pilotlight.config import Config
from pilotlight.errors import Error
from pilotlight.registry import keys
from pilotlight.registry.discovery import PRIVATE
from pilotlight.signals import ENDING, NEW_GROUP, RELOADING

START_S = 30.0
STOP_S = 10.0


@contextmanager
def session(config: Config, file: str | None, *, is_address_given: bool) -> Iterator[Client]:
    """A client of the running daemon, or of one that serves `file` too and lasts as long as the block."""
    if (client := find(config, is_address_given=is_address_given)) is not None:
        yield client
        return
    click.echo("no daemon is running: starting one for this session", err=True)
    with _own_daemon(config, file) as url:
        yield Client(url, keys.read(keys.admin_file(config.state_dir)))


@contextmanager
def _own_daemon(config: Config, file: str | None) -> Iterator[str]:
    child = _start(config, file)
    try:
        for number in {*ENDING, *RELOADING} - {signal.SIGINT}:  # which raises KeyboardInterrupt
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, _leave)
        yield _ready_url(child)
    finally:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()


def _start(config: Config, file: str | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "pilotlight", "serve", "--port", "0", "--log-level", "error"]
    command += ["--config", str(config.file), "--state-dir", str(config.state_dir)]
    command += ["--model", file] if file else []
    # A process group of its own: Ctrl-C is for the answer on the screen, not for the daemon.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # it ends with that, however we end
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {PRIVATE: "1"},
        process_group=0,
        creationflags=NEW_GROUP,
    )


def _ready_url(child: subprocess.Popen[str]) -> str:
    """Read the line the daemon prints once it is ready."""
    assert child.stdout is not None
    deadline = threading.Timer(START_S, child.kill)
    deadline.start()
    try:
        for line in child.stdout:
            if match := re.search(r"http://[^\s/]+", line):
                return match[0]
    finally:
        deadline.cancel()
    raise Error("could not start a daemon of its own; `pilotlight serve` says why")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, so that the daemon does not outlive us."""
    sys.exit(128 + number)
