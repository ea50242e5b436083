"""Tables on terminals of any width, as the commands print them."""

import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import FakeDaemon

from prepared import Prepared

Run = Callable[..., subprocess.CompletedProcess[str]]
OnTerminal = Callable[..., list[str]]

LONG = "unsloth/A-Model-With-A-Rather-Long-Name-And-More-Of-It-Still-Instruct-GGUF:Q4_0"

FRESH: dict[str, Any] = {"state": "stopped", "active": 0, "queued": 0, "bytes_resident": None}
BUSY = {
    "enough_threads": 1,
    "active": 4,
    "paused": 3,
    "classes": {"background": {"active": 3, "queued": 2}},
    "bytes_charged": 2**32,
    "unload_in_s": 900.0,
}


@pytest.fixture
def on_terminal(environ: dict[str, str], tmp_path: Path) -> OnTerminal:
    """The lines that `pilotlight` writes to a terminal that is so many columns wide."""

    def on_terminal(width: int, *arguments: str) -> list[str]:
        ours, theirs = os.openpty()
        size = {"COLUMNS": str(width), "LINES": "25"}
        with open(os.devnull) as nothing, open(ours, "rb", buffering=0) as screen:
            with closing(os.fdopen(theirs, "wb", buffering=0)):
                streams = (nothing.fileno(), theirs, theirs)
                process = Prepared(arguments, environ | size, streams, tmp_path)
            written = b""
            while piece := _read(screen.fileno()):
                written += piece
            assert process.wait(20) == 0, written
        return written.decode().splitlines()

    return on_terminal


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 2**16)
    except OSError:  # Linux' end of a terminal that nobody has open
        return b""


def words(lines: list[str]) -> list[str]:
    """All but lines that are drawn, in any order."""
    return sorted(word for line in lines for word in line.split() if set(word) != {"─"})


def with_models(daemon: FakeDaemon) -> None:
    """As a daemon has them: one that nobody asked, one that works, one with long names."""
    pilot = daemon.models[0] | {"store": "config", "bytes_disk": 2**22}
    daemon.models = [
        pilot | FRESH,
        pilot | BUSY | {"id": "qwen3-4b-instruct"},
        pilot | {"id": LONG, "aliases": [LONG.lower(), "x"]},
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", ["ps", "ls"])
def test_every_word_stays_whole_on_a_narrow_terminal(
    run: Run, daemon: FakeDaemon, on_terminal: OnTerminal, command: str, width: int
) -> None:
    """Names first of all: they are what other commands are given."""
    with_models(daemon)
    asking = (command, "--port", daemon.port)
    assert words(on_terminal(width, *asking)) == words(run(*asking).stdout.splitlines())


@pytest.mark.parametrize("width", [60, 80])
def test_figures_of_a_simulation_stay_whole(run: Run, on_terminal: OnTerminal, width: int) -> None:
    """Half a figure is another one."""
    asking = ("simulate", "--hours", "0.2", "--platform", "pi5", "--policy", "race", "--policy", "none")
    assert words(on_terminal(width, *asking)) == words(run(*asking).stdout.splitlines())


def test_what_has_several_words_goes_on_below(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    """As long as that makes it fit."""
    with_models(daemon)
    daemon.models.pop()
    asking = ("ps", "--port", daemon.port)
    assert max(map(len, on_terminal(200, *asking))) > 120
    folded = on_terminal(120, *asking)
    assert max(map(len, folded)) <= 120
    assert words(folded) == words(on_terminal(200, *asking))


def test_where_no_word_can_go_below_each_row_is_one_line(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    """That the terminal breaks."""
    daemon.models = [daemon.models[0] | FRESH]
    row = next(line for line in on_terminal(80, "ps", "--port", daemon.port) if "pilot" in line)
    assert " ".join(row.split()) == "pilot stopped llamacpp 2048 2 128 MiB 60-90 MiB - 0 0"
