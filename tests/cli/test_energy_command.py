"""`pilotlight energy` against a stand-in daemon."""

import json
import subprocess
from collections.abc import Callable

from fake_daemon import ENERGY, FakeDaemon

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_it_shows_joules_by_model_and_by_app(run: Run, daemon: FakeDaemon) -> None:
    """With how they are known, what they are of the battery, and why other meters count nothing."""
    lines = [line.split() for line in run("energy", "--port", daemon.port).stdout.splitlines()]
    assert ["pilot", "1,000.0", "250.0", "750.0", "2.5", "0.56", "%", "battery", "system"] in lines
    assert ["curl", "interactive", "4.0", "4.0", "0.0", "-", "-", "rapl", "package"] in lines
    text = [" ".join(line) for line in lines]
    assert "battery: 1,010.0 J (system) while there was work, 10.0 of them nobody's" in text
    assert "rapl: counts nothing now: root alone may read it" in text


def test_it_gives_what_the_daemon_said_to_programs(run: Run, daemon: FakeDaemon) -> None:
    """As it is."""
    assert json.loads(run("energy", "--json", "--port", daemon.port).stdout) == ENERGY
