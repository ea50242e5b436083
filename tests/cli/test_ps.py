"""`pilotlight ps` against a stand-in daemon."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon

from pilotlight.registry.discovery import Discovery

Run = Callable[..., subprocess.CompletedProcess[str]]


def shown(run: Run, daemon: FakeDaemon) -> tuple[list[str], str]:
    """The last model's row, by columns, and the line below the table."""
    *_, row, budget = filter(str.strip, run("ps", "--port", daemon.port).stdout.splitlines())
    return re.split(r"\s{2,}", row.strip()), budget


def test_it_shows_each_model_with_state_and_cost(run: Run, daemon: FakeDaemon) -> None:
    """One row per model, and what all may cost."""
    row, budget = shown(run, daemon)
    assert row[:5] == ["pilot", "ready", "llamacpp", "2048", "2"]
    assert row[5:] == ["64 MiB of 128 MiB", "60-90 MiB", "busy", "1", "2"]
    assert budget == "128 MiB charged of a budget of 1,024 MiB"


@pytest.mark.parametrize(
    ("changes", "when"),
    [
        ({"unload_in_s": 900.0}, "15 min"),
        ({"unload_in_s": 42.3}, "42 s"),
        ({}, "never"),
        ({"pin": True}, "pinned"),
        ({"state": "stopped"}, "-"),
    ],
)
def test_it_shows_when_a_model_is_unloaded(
    run: Run, daemon: FakeDaemon, changes: dict[str, object], when: str
) -> None:
    """If nobody asks for it."""
    daemon.models[0] |= {"active": 0, **changes}
    row, _ = shown(run, daemon)
    assert row[7] == when


def test_a_loading_model_shows_how_far_it_is(run: Run, daemon: FakeDaemon) -> None:
    """In per cent."""
    daemon.models[0] |= {"state": "starting", "progress": 0.25}
    assert "starting 25%" in run("ps", "--port", daemon.port).stdout


def test_it_shows_how_many_threads_are_enough(run: Run, daemon: FakeDaemon) -> None:
    """Once that was measured, and that it is meanwhile."""
    daemon.models[0] |= {"enough_threads": 1}
    row, _ = shown(run, daemon)
    assert row[4] == "2 (enough: 1)"
    daemon.models[0] |= {"state": "starting", "is_measuring": True}
    assert "measuring threads" in run("ps", "--port", daemon.port).stdout


def test_an_unknown_cost_is_a_dash(run: Run, daemon: FakeDaemon) -> None:
    """Not a zero."""
    daemon.models[0] |= {"state": "stopped", "bytes_resident": None, "bytes_charged": 0, "context": None}
    daemon.models[0] |= {"cost": None, "threads": None}
    row, _ = shown(run, daemon)
    assert row == ["pilot", "stopped", "llamacpp", "-", "-", "-", "-", "-", "1", "2"]


def test_what_can_wait_is_told_apart(run: Run, daemon: FakeDaemon) -> None:
    """And what does wait."""
    classes = {"interactive": {"active": 1, "queued": 0}, "background": {"active": 3, "queued": 2}}
    daemon.models[0] |= {"active": 4, "queued": 2, "paused": 3, "classes": classes}
    row, _ = shown(run, daemon)
    assert row[-2:] == ["4 (3 background, 3 paused)", "2 (2 background)"]


def test_conversations_on_disk_are_shown(run: Run, daemon: FakeDaemon) -> None:
    """If there are any."""
    daemon.memory["archived"] = 2**26
    assert shown(run, daemon)[1] == "64 MiB of disk for conversations of unloaded models"


def test_notices_are_shown(run: Run, daemon: FakeDaemon) -> None:
    """With their severity."""
    daemon.notices.append({"code": "x", "severity": "warning", "text": "slow mode", "since": 1.0})
    assert "warning: slow mode" in run("ps", "--port", daemon.port).stdout


def test_a_notice_sends_the_terminal_nothing_to_act_on(run: Run, daemon: FakeDaemon) -> None:
    """It may quote a model's file, which is a stranger's."""
    text = "x\x1b]52;c;ZXZpbA==\x07.block_count is 0"
    daemon.notices.append({"code": "x", "severity": "warning", "text": text, "since": 1.0})
    told = "x]52;c;ZXZpbA==.block_count is 0"
    assert f"warning: {told}" in run("ps", "--port", daemon.port).stdout
    assert told in run("doctor", "--port", daemon.port).stdout


def test_json_is_what_the_daemon_said(run: Run, daemon: FakeDaemon) -> None:
    """For scripts."""
    said = json.loads(run("ps", "--json", "--port", daemon.port).stdout)
    assert said == {"url": daemon.url, "models": daemon.models, "memory": daemon.memory, "notices": []}


def test_a_daemon_on_any_port_is_found_by_its_state_directory(
    run: Run, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """That is what daemon.json is for."""
    Discovery(tmp_path / "state").write(daemon.url)
    assert "pilot" in run("ps").stdout


def test_a_given_address_is_the_only_one_asked(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Even when another daemon can be found."""
    Discovery(tmp_path / "state").write(daemon.url)
    assert run("ps", "--port", "1").returncode == 1


def test_without_a_daemon_it_says_so(run: Run) -> None:
    """One line, exit code 1."""
    result = run("ps")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "pilotlight: no daemon is running; `pilotlight serve` starts one\n"
