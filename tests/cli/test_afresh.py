"""Each command as a person starts it; the other tests of commands run them where all is imported already."""

import subprocess
from collections.abc import Callable

import pytest
from fake_daemon import FakeDaemon

from pilotlight.cli import COMMANDS

Run = Callable[..., subprocess.CompletedProcess[str]]

ALONE = [
    ("batch", "ls"),
    ("completion", "bash"),
    ("doctor", "--json"),
    ("fit", "pilot", "--json"),
    ("ls",),
    ("policy", "check"),
    ("prune", "--dry-run"),
    ("pull", "nothing"),
    ("rm", "nothing"),
    ("rollback", "nothing"),
    ("serve", "--log-level", "loud"),
    ("show", "pilot"),
    ("simulate", "--hours", "0.1", "--platform", "pi5", "--policy", "race"),
]

ASKING = [("energy",), ("load", "pilot"), ("policy",), ("ps",), ("run", "pilot", "Hi?"), ("stop", "pilot")]


def is_same(run: Run, run_afresh: Run, arguments: tuple[str, ...]) -> bool:
    """But for figures of the machine, which differ from one moment to the next."""
    prepared, fresh = run(*arguments), run_afresh(*arguments)
    assert "Traceback" not in fresh.stderr
    lines = len(fresh.stdout.splitlines()), len(prepared.stdout.splitlines())
    return (fresh.returncode, fresh.stderr, lines[0]) == (prepared.returncode, prepared.stderr, lines[1])


@pytest.mark.parametrize("arguments", ALONE, ids="-".join)
def test_a_command_imports_what_it_needs(run: Run, run_afresh: Run, arguments: tuple[str, ...]) -> None:
    """It says the same as where it was imported before."""
    assert is_same(run, run_afresh, arguments)


@pytest.mark.parametrize("arguments", ASKING, ids="-".join)
def test_a_command_that_asks_a_daemon_imports_what_it_needs(
    run: Run, run_afresh: Run, daemon: FakeDaemon, arguments: tuple[str, ...]
) -> None:
    """The same."""
    assert is_same(run, run_afresh, (*arguments, "--port", daemon.port))


def test_no_command_is_left_out() -> None:
    """A new one stands above, too."""
    assert {name for name, *_ in ALONE + ASKING} == set(COMMANDS)
