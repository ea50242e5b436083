"""models.toml read again by a running daemon, on a request and on a signal."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resolving import put
from serving import NO_TLS, PROGRAM, Daemon, chat, clean_environ, echo, serving, table, text_of, until

Serve = Callable[..., Daemon]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for the files that change nothing."""
    folder = tmp_path_factory.mktemp("steady")
    with serving(folder, models=echo(folder)) as daemon:
        yield daemon


def reload(daemon: Daemon) -> httpx.Response:
    return daemon.admin("reload")


def said(daemon: Daemon) -> dict[str, Any]:
    response = reload(daemon)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return {key: body[key] for key in ("added", "changed", "removed", "needs_restart")}


def test_a_reload_adds_changes_and_removes_models(serve: Serve, tmp_path: Path) -> None:
    """Each is at once what the file says; nothing else is touched."""
    same = echo(tmp_path, "same")
    daemon = serve(models=same + echo(tmp_path, "other") + echo(tmp_path, "gone"))
    for model in ("same", "other", "gone"):
        assert daemon.post(model).status_code == 200
    worker = daemon.worker("same").pid
    models = same + echo(tmp_path, "other", parallel=3) + echo(tmp_path, "new")
    (tmp_path / "models.toml").write_text(models)
    assert said(daemon) == {"added": ["new"], "changed": ["other"], "removed": ["gone"], "needs_restart": []}
    assert daemon.post("new").status_code == 200
    assert daemon.post("gone").status_code == 404
    assert daemon.post("other").status_code == 200
    assert daemon.model("other")["parallel"] == 3
    assert daemon.post("same").status_code == 200
    assert daemon.worker("same").pid == worker
    # One each for same, other and new.
    until(lambda: len(daemon.processes()) == 4)


def test_what_runs_is_not_disturbed(serve: Serve, tmp_path: Path) -> None:
    """A stream of a changed model, and one of a removed one, go on to their ends; then their workers go."""
    models = [echo(tmp_path, name, tokens_per_s=50, parallel=2) for name in ("changed", "removed")]
    daemon = serve(models="".join(models))
    question = [{"role": "user", "content": "one two three " * 20 + "end"}]
    with (
        daemon.stream("changed", messages=question) as changed,
        daemon.stream("removed", messages=question) as removed,
    ):
        next(changed), next(removed)
        (tmp_path / "models.toml").write_text(models[0].replace("parallel = 2", "parallel = 3"))
        assert said(daemon)["removed"] == ["removed"]
        later = daemon.post("changed", messages=question[:1], max_tokens=1)
        assert text_of(changed).endswith("end ")
        assert text_of(removed).endswith("end ")
    assert later.status_code == 200
    assert daemon.model("changed")["parallel"] == 3
    # Ourselves and the new worker.
    until(lambda: len(daemon.processes()) == 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "unknown key server.prot; did you mean 'port'?"),
        ("[[model]]\nname = 'm'", "model[0].path (line 1) is missing"),
        ("[[model]", "models.toml: "),
        (
            "[[model]]\nname = 'm'\npath = 'm'\nruntime = 'mlx'\nthreads = 1",
            "threads is not supported by mlx",
        ),
        (f"[server]\nstore_dir = '{'x' * 300}'", "xxx cannot be used: File name too long"),
        ("[[model]]\nname = 'm'\npath = 'm'\n[[model]]\nname = 'm'\npath = 'x'", "two models are named 'm'"),
    ],
)
def test_a_wrong_file_changes_nothing(steady: Daemon, text: str, message: str) -> None:
    """A 400 that says why; on a signal it is a notice, until the file is right again."""
    assert steady.post("echo").status_code == 200
    worker = steady.worker("echo").pid
    file = steady.state_dir.with_name("models.toml")
    right = file.read_text()
    file.write_text(text)
    try:
        response = reload(steady)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "config_error")
        assert message in response.json()["error"]["message"]
        assert "not_reloaded" not in steady.notices()
        steady.signal(signal.SIGHUP)
        assert message in until(lambda: steady.notices().get("not_reloaded"))["text"]
        assert steady.post("echo").status_code == 200
        assert steady.worker("echo").pid == worker
    finally:
        file.write_text(right)
    steady.signal(signal.SIGHUP)
    until(lambda: "not_reloaded" not in steady.notices())


def test_a_model_of_the_command_line_stays_though_its_file_is_away(serve: Serve, tmp_path: Path) -> None:
    """For a moment, perhaps: that is told, and nothing changes."""
    (tmp_path / "away.gguf").touch()
    daemon = serve("--model", str(tmp_path / "away.gguf"), models=echo(tmp_path))
    (tmp_path / "away.gguf").unlink()
    response = reload(daemon)
    assert response.status_code == 400
    assert "away.gguf: no such file" in response.json()["error"]["message"]
    assert daemon.model("away")["id"] == "away"


def test_a_model_whose_file_is_away_is_what_it_was(serve: Serve, tmp_path: Path) -> None:
    """For a moment, perhaps, as its disk is: its worker goes on."""
    models = echo(tmp_path, tokens_per_s=1000)
    daemon = serve(models=models)
    assert daemon.post("echo").status_code == 200
    worker = daemon.worker("echo").pid
    (tmp_path / "echo.toml").unlink()
    assert said(daemon)["changed"] == []
    assert daemon.post("echo").status_code == 200
    assert daemon.worker("echo").pid == worker


def test_a_model_is_judged_by_the_settings_as_they_were_last_read(
    serve: Serve, tmp_path: Path, tiny_gguf: Path
) -> None:
    """From the user's own file, which was not there at the start."""
    nameless = "import sys; at = sys.argv.index('--config'); del sys.argv[at : at + 2]"
    own = tmp_path / "config" / "pilotlight" / "models.toml"
    daemon = serve(program=f"{nameless}; {PROGRAM}", environ={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    own.parent.mkdir(parents=True)
    own.write_text(table("tiny", tiny_gguf))
    assert said(daemon)["added"] == ["tiny"]
    assert daemon.admin("models/fit", model="tiny").json()["fits"]


def test_a_load_at_start_of_a_model_that_is_removed_leaves_no_notice(serve: Serve, tmp_path: Path) -> None:
    """It was broken off because nobody wants the model any more, and nothing would clear the notice."""
    old = echo(tmp_path, "old", load_s=100) + 'aliases = ["it"]\n'
    daemon = serve("--model", "it", models=old)
    until(lambda: daemon.model("old")["state"] == "starting")
    (tmp_path / "models.toml").write_text(echo(tmp_path, "new") + 'aliases = ["it"]\n')
    assert said(daemon)["removed"] == ["old"]
    until(lambda: [process.pid for process in daemon.processes()] == [daemon.pid])
    assert "not_loaded_old" not in daemon.notices()


def test_the_signal_does_what_the_request_does(serve: Serve, tmp_path: Path) -> None:
    """`systemctl reload` sends it."""
    daemon = serve(models=echo(tmp_path))
    (tmp_path / "models.toml").write_text(echo(tmp_path) + echo(tmp_path, "new"))
    daemon.signal(signal.SIGHUP)
    until(lambda: daemon.post("new").status_code == 200)


def test_clients_change_their_class(serve: Serve, tmp_path: Path) -> None:
    """The next request of each is of the new one."""
    daemon = serve(models=echo(tmp_path))
    assert daemon.post("echo").json()["service_tier"] == "default"
    settings = '[classes.background]\nagents = ["python-httpx*"]\n'
    (tmp_path / "models.toml").write_text(settings + echo(tmp_path))
    assert said(daemon)["needs_restart"] == []
    assert daemon.post("echo").json()["service_tier"] == "flex"


def test_the_preset_in_force_is_told(serve: Serve, tmp_path: Path) -> None:
    """That of the file as it was read last."""
    daemon = serve(models=echo(tmp_path))
    (tmp_path / "models.toml").write_text("[policy]\npreset = 'quiet'\n" + echo(tmp_path))
    assert said(daemon)["needs_restart"] == []
    assert daemon.get("/admin/policy").json()["preset"] == "quiet"


def test_pulled_models_are_looked_for_where_they_are_pulled_to(serve: Serve, tmp_path: Path) -> None:
    """Until the restart that another folder needs."""
    put(tmp_path, "a/tiny")
    models = "[server]\nstore_dir = 'store'\n" + echo(tmp_path)
    daemon = serve(models=models)
    (tmp_path / "models.toml").write_text(models.replace("'store'", "'other'"))
    assert said(daemon) == {"added": [], "changed": [], "removed": [], "needs_restart": ["server.store_dir"]}
    assert daemon.model("a/tiny")["id"] == "a/tiny"


def test_what_waits_for_a_restart_is_told(serve: Serve, tmp_path: Path) -> None:
    """And is as it was until then."""
    daemon = serve(models=echo(tmp_path))
    (tmp_path / "models.toml").write_text("[server]\nqueue = 0\ndrain_s = 1\n" + echo(tmp_path))
    assert said(daemon)["needs_restart"] == ["server.queue", "server.drain_s"]
    assert daemon.post("echo").status_code == 200


def test_a_terminal_that_closes_ends_the_daemon(tmp_path: Path) -> None:
    """It sends the same signal, and nobody would be left to end a daemon that was started by hand.

    What it answers may end in any case: a second of these signals is no second wish.
    """
    ours, theirs = pty.openpty()
    # The first terminal that the leader of a session opens is its own.
    program = f"import os; os.close(os.open({os.ttyname(theirs)!r}, os.O_RDWR)); {PROGRAM}"
    (tmp_path / "models.toml").write_text(echo(tmp_path, "slow", tokens_per_s=20))
    options = ["--port", "0", "--config", "models.toml", "--state-dir", "state"]
    with (tmp_path / "log").open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", *options],
            cwd=tmp_path,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=clean_environ(),
            start_new_session=True,
            text=True,
        )
    try:
        os.close(theirs)
        assert process.stdout is not None
        url = process.stdout.readline().partition("ready at ")[2].strip()
        log = tmp_path / "log"
        process.send_signal(signal.SIGHUP)
        until(lambda: "settings read again" in log.read_text())
        asked = chat("slow", stream=True, max_tokens=100_000)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, verify=NO_TLS) as answer:
            next(answer.iter_lines())
            os.close(ours)
            until(lambda: log.read_text().count("signal received") == 2)
            process.send_signal(signal.SIGHUP)  # as the shell in it does, besides the system
            until(lambda: log.read_text().count("signal received") == 3)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
