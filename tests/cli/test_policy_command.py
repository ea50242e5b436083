"""`pilotlight policy` against a stand-in daemon."""

import json
import subprocess
from collections.abc import Callable

from fake_daemon import POLICY, FakeDaemon

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_it_shows_what_is_known_and_why_the_rest_is_not(run: Run, daemon: FakeDaemon) -> None:
    """A row with unit, age and source; a line with a reason."""
    lines = [line.split() for line in run("policy", "--port", daemon.port).stdout.splitlines()]
    assert ["percent", "41.50", "%", "3", "s", "power_supply", "BAT0", "measured"] in lines
    assert ["celsius", "is", "not", "known:", "there", "is", "no", "thermometer"] in lines


def test_it_shows_the_rules_and_what_they_do(run: Run, daemon: FakeDaemon) -> None:
    """With what is about to change."""
    said = run("policy", "--port", daemon.port).stdout
    assert "the preset is balanced" in said and "overridden for another 60 s" in said
    assert "rule: low battery, ends in 21 s" in said and "rule: saver on, begins in 1 s" in said
    assert "interactive: unrestricted" in said
    assert "background: on battery: background requests wait" in said


def test_it_shows_what_heat_means_for_background_work(run: Run, daemon: FakeDaemon) -> None:
    """How much it runs, when it goes on, and why."""
    said = run("policy", "--port", daemon.port).stdout
    assert "heat: background work runs 40 % of the time, and rests now, for 3 s" in said
    assert "clock: the system's power saver is held" in said
    assert "above the 0.78 that leave room" in said and "next answer: 0.20 of headroom" in said


def test_it_gives_what_the_daemon_said_to_programs(run: Run, daemon: FakeDaemon) -> None:
    """As it is."""
    assert json.loads(run("policy", "--json", "--port", daemon.port).stdout) == POLICY


def test_without_a_daemon_it_says_so(run: Run) -> None:
    """And how to start one."""
    done = run("policy")
    assert (done.returncode, "no daemon is running" in done.stderr) == (1, True)
