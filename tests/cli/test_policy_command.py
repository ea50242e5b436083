"""`pilotlight policy` against a stand-in daemon."""

import json
import subprocess
from collections.abc import Callable

from fake_daemon import READING, FakeDaemon

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_it_shows_what_is_known_and_why_the_rest_is_not(run: Run, daemon: FakeDaemon) -> None:
    """A row with unit, age and source; a line with a reason."""
    lines = [line.split() for line in run("policy", "--port", daemon.port).stdout.splitlines()]
    assert ["percent", "41.50", "%", "3", "s", "power_supply", "BAT0", "measured"] in lines
    assert lines[-1] == ["celsius", "is", "not", "known:", "there", "is", "no", "thermometer"]


def test_it_gives_what_the_daemon_said_to_programs(run: Run, daemon: FakeDaemon) -> None:
    """As it is."""
    assert json.loads(run("policy", "--json", "--port", daemon.port).stdout) == {"reading": READING}


def test_without_a_daemon_it_says_so(run: Run) -> None:
    """And how to start one."""
    done = run("policy")
    assert (done.returncode, "no daemon is running" in done.stderr) == (1, True)
