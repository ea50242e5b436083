"""`pilotlight batch` against a real daemon."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_daemon import FakeDaemon

from prepared import Prepared
from serving import END_S, Daemon, echo, serving, until

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("batches")
    with serving(folder, models=echo(folder) + echo(folder, "slow", tokens_per_s=5)) as daemon:
        yield daemon


@pytest.fixture
def batch(run: Run, served: Daemon) -> Run:
    """`pilotlight batch` with these arguments."""
    return lambda *arguments: run("batch", *arguments, PILOTLIGHT_STATE_DIR=str(served.state_dir))


def write(path: Path, *models: str, url: str = "/v1/completions", **fields: Any) -> str:
    """A file with a line for each model; its path."""
    bodies = [{"model": model, "prompt": "four five", **fields} for model in models]
    lines = [
        json.dumps({"custom_id": str(number), "method": "POST", "url": url, "body": body})
        for number, body in enumerate(bodies)
    ]
    path.write_text("\n".join(lines))
    return str(path)


def uploads(served: Daemon) -> list[str]:
    """The ids of what was uploaded and is there."""
    return [file["id"] for file in httpx.get(f"{served.url}/v1/files?purpose=batch").json()["data"]]


def test_a_file_is_submitted_and_waited_for(batch: Run, tmp_path: Path) -> None:
    """Its endpoint is that of its lines; then there are answers, and nothing is left in the end."""
    done = batch("submit", write(tmp_path / "in.jsonl", "echo", "echo"), "--wait", "--json")
    assert done.returncode == 0, done.stderr
    submitted = json.loads(done.stdout)
    assert (submitted["status"], submitted["endpoint"]) == ("completed", "/v1/completions")
    output = batch("output", submitted["id"]).stdout.splitlines()
    assert sorted(json.loads(line)["custom_id"] for line in output) == ["0", "1"]
    assert f"{submitted['id']}: completed, 2 of 2 answered, 0 errors" in batch("show", submitted["id"]).stdout
    assert submitted["id"] in batch("ls").stdout
    removed = json.loads(batch("rm", submitted["id"], "--json").stdout)
    assert removed == {"id": submitted["id"], "deleted": True, "input_deleted": True}
    assert submitted["id"] not in [one["id"] for one in json.loads(batch("ls", "--json").stdout)]


def test_what_comes_through_a_pipe_is_submitted(batch: Run, tmp_path: Path) -> None:
    """As `<(jq ...)` in a shell, which can be read only once."""
    os.mkfifo(pipe := tmp_path / "pipe")
    lines = Path(write(tmp_path / "in.jsonl", "echo", "echo")).read_text()
    threading.Thread(target=pipe.write_text, args=(lines,), daemon=True).start()
    done = json.loads(batch("submit", str(pipe), "--wait", "--json").stdout)
    assert (done["endpoint"], done["request_counts"]["completed"]) == ("/v1/completions", 2)


def test_what_comes_through_a_pipe_leaves_nothing(
    environ: dict[str, str], served: Daemon, tmp_path: Path
) -> None:
    """Whatever ends the command; it has no name on the disk at any time."""
    os.mkfifo(pipe := tmp_path / "pipe")
    (folder := tmp_path / "temporary").mkdir()
    environ |= {"PILOTLIGHT_STATE_DIR": str(served.state_dir), "TMPDIR": str(folder)}
    process = Prepared(("batch", "submit", str(pipe)), environ, (0, 1, 2), tmp_path)
    with pipe.open("wb") as lines:
        lines.write(b" " * 2**20)  # more than a pipe holds: some of it is copied when this returns
        assert list(folder.iterdir()) == []
        process.send_signal(signal.SIGTERM)
        process.wait(END_S)
        with suppress(BrokenPipeError):
            lines.flush()
    assert list(folder.iterdir()) == []


def test_answers_are_shown_plainly_on_a_terminal(
    batch: Run, environ: dict[str, str], served: Daemon, tmp_path: Path
) -> None:
    """Models wrote them; JSON lets some of what a terminal acts on be. In a pipe they stay as they are."""
    file = write(tmp_path / "in.jsonl", "echo", prompt="caf\xe9 \x9b2J five")
    batch_id = json.loads(batch("submit", file, "--wait", "--json").stdout)["id"]
    answers = batch("output", batch_id).stdout
    assert "\x9b2J" in answers
    ours, theirs = os.openpty()
    state = {"PILOTLIGHT_STATE_DIR": str(served.state_dir)}
    process = Prepared(("batch", "output", batch_id), environ | state, (theirs, theirs, 2), tmp_path)
    assert process.wait(END_S) == 0
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as screen:
        assert screen.read(2**16).decode().replace("\r\n", "\n") == answers.replace("\x9b", "")


def test_what_cannot_be_copied_is_one_line(batch: Run) -> None:
    """The terminal of a program that has none, or no room for a copy."""
    refused = batch("submit", "/dev/tty")
    assert refused.returncode == 1
    assert refused.stderr.startswith("pilotlight: /dev/tty cannot be copied to ")


def test_errors_of_lines_are_an_exit_code(batch: Run, tmp_path: Path) -> None:
    """And a file of their own."""
    done = batch("submit", write(tmp_path / "in.jsonl", "echo", temperature=99), "--wait", "--json")
    assert done.returncode == 1
    batch_id = json.loads(done.stdout)["id"]
    assert json.loads(batch("output", batch_id, "--errors").stdout)["response"]["status_code"] == 400
    missing = batch("output", batch_id)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert f"{batch_id} has no answers: completed, 0 of 1 answered, 1 errors" in missing.stderr


def test_bad_lines_are_shown(batch: Run, tmp_path: Path) -> None:
    """By number."""
    done = batch("submit", write(tmp_path / "in.jsonl", "echo", "ecko"), "--wait")
    assert done.returncode == 1
    assert "failed, 0 of 0 answered" in done.stdout
    assert "line 2: no model is named 'ecko'; did you mean 'echo'?" in done.stdout


def test_what_is_wrong_is_told_plainly(run: Run, daemon: FakeDaemon) -> None:
    """It may quote a stranger's file."""
    daemon.bodies["/v1/batches/batch_1"] = {
        "id": "batch_1",
        "status": "failed",
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "errors": {"data": [{"line": 1, "message": "no \x1b]0;title\x07model"}]},
    }
    shown = run("batch", "show", "batch_1", "--port", daemon.port)
    assert shown.stdout.endswith("  line 1: no ]0;titlemodel\n"), shown.stderr


def test_a_batch_is_cancelled(batch: Run, tmp_path: Path) -> None:
    """One that nobody knows is not."""
    file = write(tmp_path / "in.jsonl", "slow", max_tokens=100_000, ignore_eos=True)
    batch_id = json.loads(batch("submit", file, "--window", "7d", "--json").stdout)["id"]
    assert "cancelling" in batch("cancel", batch_id).stdout
    refused = batch("cancel", "batch_0")
    assert (refused.returncode, refused.stderr) == (1, "pilotlight: there is no batch 'batch_0'\n")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"url": 5}'])
def test_a_file_that_is_none_is_the_daemons_to_refuse(batch: Run, tmp_path: Path, content: str) -> None:
    """It says what is wrong with it."""
    (tmp_path / "in.jsonl").write_text(content)
    done = batch("submit", str(tmp_path / "in.jsonl"), "--wait")
    assert done.returncode == 1
    assert "failed" in done.stdout or "endpoint" in done.stderr


@pytest.mark.parametrize(
    ("url", "window", "param"),
    [("/v1/completions", "5y", "completion_window"), ("/v1/nowhere", "24h", "endpoint")],
)
def test_an_upload_for_a_batch_that_is_refused_is_deleted(
    batch: Run, served: Daemon, tmp_path: Path, url: str, window: str, param: str
) -> None:
    """Nobody would know of it; what was wrong is told all the same."""
    before = uploads(served)
    done = batch("submit", write(tmp_path / "in.jsonl", "echo", url=url), "--window", window)
    assert done.returncode == 1
    assert param in done.stderr
    assert uploads(served) == before


def test_a_batch_whose_input_is_gone_is_removed(batch: Run, served: Daemon, tmp_path: Path) -> None:
    """Somebody deleted the input, or it was over age."""
    done = json.loads(batch("submit", write(tmp_path / "in.jsonl", "echo"), "--wait", "--json").stdout)
    httpx.delete(f"{served.url}/v1/files/{done['input_file_id']}").raise_for_status()
    removed = batch("rm", done["id"])
    assert (removed.returncode, removed.stdout) == (0, f"{done['id']} is deleted\n"), removed.stderr


def test_batches_complete_in_the_shell(run: Run, served: Daemon, batch: Run, tmp_path: Path) -> None:
    """Those of the daemon."""
    batch_id = json.loads(batch("submit", write(tmp_path / "in.jsonl", "echo"), "--json").stdout)["id"]
    environ = {"PILOTLIGHT_STATE_DIR": str(served.state_dir), "_PILOTLIGHT_COMPLETE": "bash_complete"}
    asked = run(COMP_WORDS="pilotlight batch show ba", COMP_CWORD="3", **environ)
    assert batch_id in asked.stdout


def test_without_a_daemon_there_are_no_batches(run: Run) -> None:
    """It says how to start one."""
    done = run("batch", "ls")
    assert (done.returncode, done.stderr) == (
        1,
        "pilotlight: no daemon is running; `pilotlight serve` starts one\n",
    )


def test_one_that_waits_for_the_policy_says_why(run: Run, tmp_path: Path) -> None:
    """On battery, for instance."""
    supply = tmp_path / "machine/sys/class/power_supply/BAT0"
    supply.mkdir(parents=True)
    (supply / "type").write_text("Battery")
    (supply / "status").write_text("Discharging")
    with serving(tmp_path, "--power-root", str(tmp_path / "machine"), models=echo(tmp_path)) as daemon:
        state = {"PILOTLIGHT_STATE_DIR": str(daemon.state_dir)}
        file = write(tmp_path / "in.jsonl", "echo")
        batch_id = json.loads(run("batch", "submit", file, "--json", **state).stdout)["id"]
        assert until(lambda: "waits" in run("batch", "ls", **state).stdout)
        assert "on battery: batch requests wait; plug in" in run("batch", "show", batch_id, **state).stdout
