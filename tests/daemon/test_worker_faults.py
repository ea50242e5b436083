"""Workers that die, hang, lie or make noise: what clients hear of it, and that nobody else is disturbed."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving import PROGRAM, Daemon, echo, text_of, until

Serve = Callable[..., Daemon]


def stand_in(folder: Path, script: str) -> str:
    """A program whose workers are not ours but this Python script."""
    path = folder / "stand_in"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o700)
    return f"import sys; import pilotlight; sys.executable = {str(path)!r}; {PROGRAM}"


def test_a_killed_worker_ends_its_streams_with_an_error_event(serve: Serve, tmp_path: Path) -> None:
    """Whoever listens to another model hears nothing of it, and the next request gets a fresh worker."""
    daemon = serve(models=echo(tmp_path, "dies", tokens_per_s=50) + echo(tmp_path, "lives", tokens_per_s=50))
    with daemon.stream("dies", max_tokens=1000) as dying, daemon.stream("lives", max_tokens=30) as living:
        next(dying), next(living)
        daemon.worker("dies").kill()
        *_, last = dying
        *rest, end = living
    assert (last["error"]["code"], last["error"]["source"]) == ("worker_failed", "worker")
    assert "SIGKILL" in last["error"]["message"]
    assert len(text_of(iter(rest)).split()) == 30
    assert end == {"done": True}
    assert daemon.post("dies", max_tokens=2).status_code == 200


def test_a_failed_worker_is_a_notice_until_the_next_one_is_ready(serve: Serve, tmp_path: Path) -> None:
    """And is counted."""
    daemon = serve(models=echo(tmp_path))
    assert daemon.post("echo").status_code == 200
    daemon.worker("echo").kill()
    notice = until(lambda: daemon.notices().get("worker_failed_echo"))
    assert notice["severity"] == "error"
    assert "SIGKILL" in notice["text"]
    assert daemon.post("echo").status_code == 200
    assert daemon.notices() == {}
    assert 'pilotlight_worker_restarts_total{model="echo"} 1.0' in daemon.get("/metrics").text


def test_a_worker_that_dies_by_itself_is_a_500_for_a_whole_answer(serve: Serve, tmp_path: Path) -> None:
    """In OpenAI's shape, saying what happened."""
    daemon = serve(models=echo(tmp_path, die_after_tokens=5))
    answer = daemon.post("echo", max_tokens=10)
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["code"], error["type"], error["source"]) == ("worker_failed", "server_error", "worker")
    assert "echo: worker died of SIGKILL" in error["message"]
    assert daemon.post("echo", max_tokens=2).status_code == 200


def test_who_waits_behind_a_worker_that_dies_is_served_by_the_next(serve: Serve, tmp_path: Path) -> None:
    """Only those it ran are lost."""
    models = "[server]\naccept_s = 0\n"
    models += echo(tmp_path, parallel=1, tokens_per_s=20, die_after_tokens=20)
    daemon = serve(models=models)
    with daemon.stream("echo", max_tokens=1000) as first:
        next(first)
        with daemon.stream("echo", max_tokens=2) as second:
            until(lambda: daemon.model("echo")["queued"])
            *_, last = first
            assert last["error"]["code"] == "worker_failed"
            *rest, end = second
    assert (text_of(iter(rest)), end) == ("one two ", {"done": True})


def test_a_bug_in_a_worker_is_told_with_its_last_words(serve: Serve, tmp_path: Path) -> None:
    """An exception that nobody expected, and where; not its message, which may hold a prompt."""
    daemon = serve(models=echo(tmp_path, no_such_knob=1))
    error = daemon.post("echo").json()["error"]
    assert "worker exited with 1: TypeError at echo.py:" in error["message"]
    assert "Traceback" in daemon.log
    assert "no_such_knob" not in error["message"] + daemon.log


def test_a_load_that_is_refused_tells_why(serve: Serve, tmp_path: Path) -> None:
    """The runtime's own words, with the model's name before them."""
    daemon = serve(models=echo(tmp_path, load_error="the weights are sour"))
    answer = daemon.post("echo")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "worker_failed")
    assert "echo: the weights are sour" in answer.json()["error"]["message"]
    assert daemon.model("echo")["state"] == "failed"


def test_a_load_that_never_ends_is_given_up(serve: Serve, tmp_path: Path) -> None:
    """After `load_s`; its process is ended, and the daemon goes on."""
    daemon = serve(models="[defaults]\nload_s = 1\n" + echo(tmp_path, load_s=1000) + echo(tmp_path, "other"))
    answer = daemon.post("echo")
    assert answer.status_code == 500
    assert "did not answer in time" in answer.json()["error"]["message"]
    assert [process.pid for process in daemon.processes()] == [daemon.pid]
    until(lambda: daemon.post("other").status_code == 200)  # on a busy machine its load, too, takes a second


@pytest.mark.parametrize(
    ("script", "load_s", "complaint"),
    [
        ("import sys; sys.stdin.read()", 1, "did not answer in time"),
        ("import sys; print('Hello, I am a worker.', flush=True); sys.stdin.read()", 20, "frame of"),
        ("raise SystemExit(7)", 20, "exited with 7"),
        (
            "import os, sys; from pilotlight.worker.protocol import *; "
            "os.write(1, encode(Hello(99, 1))); sys.stdin.read()",
            20,
            "expected protocol",
        ),
    ],
    ids=["silent", "noise", "gone", "other version"],
)
def test_a_worker_that_never_says_hello_is_given_up(
    serve: Serve, tmp_path: Path, script: str, load_s: int, complaint: str
) -> None:
    """Whatever it says instead; no process of it is left."""
    models = f"[defaults]\nload_s = {load_s}\n" + echo(tmp_path)
    daemon = serve(models=models, program=stand_in(tmp_path, script))
    answer = daemon.post("echo")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "worker_failed")
    assert complaint in answer.json()["error"]["message"]
    assert [process.pid for process in daemon.processes()] == [daemon.pid]


def test_noise_from_native_code_does_not_matter(serve: Serve, tmp_path: Path) -> None:
    """2 MB on stderr go to the log instead of stopping the worker; stdout is not the protocol's."""
    daemon = serve(models=echo(tmp_path, stderr_lines=20_000, stdout_noise=True))
    assert daemon.post("echo").json()["choices"][0]["message"]["content"] == "one two three "
    assert "noise 19999" in daemon.log
    assert "native code printed this" in daemon.log


def test_a_client_that_leaves_while_the_model_loads_is_forgotten(serve: Serve, tmp_path: Path) -> None:
    """The load goes on; the next request finds the model."""
    daemon = serve(models="[server]\naccept_s = 0\n" + echo(tmp_path, load_s=2))
    with daemon.stream("echo"):
        until(lambda: daemon.model("echo")["queued"] == 1)
    until(lambda: daemon.model("echo")["queued"] == 0)
    assert daemon.model("echo")["state"] == "starting"
    assert daemon.post("echo").status_code == 200
    assert daemon.log.count("loading model") == 1


def test_many_who_ask_at_once_share_one_load(serve: Serve, tmp_path: Path) -> None:
    """All are served by it."""
    daemon = serve(models=echo(tmp_path, load_s=0.3))
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(daemon.post, ["echo"] * 10))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert daemon.log.count("loading model") == 1
