"""Native code that crashes while loading: safer modes are tried, told and remembered."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import Daemon, echo

Serve = Callable[..., Daemon]


def outcomes(daemon: Daemon) -> list[dict[str, str]]:
    """What is remembered."""
    found: list[dict[str, str]] = json.loads((daemon.state_dir / "ladder.json").read_text())["outcomes"]
    return found


@pytest.mark.parametrize("crash", ["SIGSEGV", "SIGILL"])
def test_a_crash_costs_one_load_and_a_notice(serve: Serve, tmp_path: Path, crash: str) -> None:
    """The request is served in the next mode; the notice says what happened, what it costs, and the fix."""
    daemon = serve(models=echo(tmp_path, crash_modes=["full"], crash_signal=crash))
    assert daemon.post("echo").json()["choices"][0]["message"]["content"] == "one two three "
    notice = daemon.notices()["safe_mode_echo"]
    assert notice["severity"] == "warning"
    for words in ("mode no-extra-buffers", crash, "1.4 times slower", "pilotlight doctor"):
        assert words in notice["text"]
    (outcome,) = outcomes(daemon)
    assert (outcome["runtime"], outcome["mode"]) == ("echo", "no-extra-buffers")


def test_the_last_mode_is_reached_when_two_crash(serve: Serve, tmp_path: Path) -> None:
    """One load each."""
    daemon = serve(models=echo(tmp_path, crash_modes=["full", "no-extra-buffers"]))
    assert daemon.post("echo").status_code == 200
    assert [outcome["mode"] for outcome in outcomes(daemon)] == ["plain"]
    assert daemon.log.count("worker crashed while loading") == 2


def test_the_next_start_does_not_crash_again(serve: Serve, tmp_path: Path) -> None:
    """It goes straight to the mode that worked, and the notice stands again."""
    models = echo(tmp_path, crash_modes=["full"])
    first = serve(models=models)
    assert first.post("echo").status_code == 200
    first.stop()
    second = serve(models=models)
    assert second.post("echo").status_code == 200
    assert second.log.count("worker crashed while loading") == 1, "that of the first start, in the same log"
    assert "safe_mode_echo" in second.notices()


def test_a_file_that_crashes_every_mode_is_an_error(serve: Serve, tmp_path: Path) -> None:
    """It is the file's fault, so nothing is remembered, and other models keep the fastest mode."""
    modes = ["full", "no-extra-buffers", "plain"]
    daemon = serve(models=echo(tmp_path, crash_modes=modes) + echo(tmp_path, "other"))
    answer = daemon.post("echo")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "worker_failed")
    assert "in every mode" in answer.json()["error"]["message"]
    assert not (daemon.state_dir / "ladder.json").exists()
    assert daemon.post("other").status_code == 200
    assert "safe_mode_echo" not in daemon.notices()


def test_a_worker_that_was_killed_while_loading_did_not_crash(serve: Serve, tmp_path: Path) -> None:
    """SIGKILL is somebody else's doing (often the kernel's, out of memory): no slower mode for that."""
    daemon = serve(models=echo(tmp_path, crash_modes=["full"], crash_signal="SIGKILL"))
    answer = daemon.post("echo")
    assert answer.status_code == 500
    assert "SIGKILL while loading" in answer.json()["error"]["message"]
    assert not (daemon.state_dir / "ladder.json").exists()
