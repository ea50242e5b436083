"""A daemon's end: what a first signal lets finish, what it refuses, and what a second one does."""

import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving import END_S, PROGRAM, Daemon, echo, text_of, until

Serve = Callable[..., Daemon]

STOPPING = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


FAILING = """
from pilotlight.daemon import Daemon

async def fail(self):
    raise ZeroDivisionError("a bug of ours")

Daemon._drain = fail
"""

HASTY = f"""
from pilotlight.worker import handle

handle.SAVE_S = handle.STOP_S = 0.3
{PROGRAM}
"""
"""A daemon that soon gives up waiting for its workers."""


def hanging(function: str) -> str:
    """A daemon in which this function never returns, and that soon gives up waiting."""
    module, _, name = function.rpartition(".")
    return f"""
import pkgutil, sys, threading
from pilotlight import daemon

def hang(*_):
    print("{name} hangs from now on", file=sys.stderr, flush=True)
    threading.Event().wait()

setattr(pkgutil.resolve_name("{module}"), "{name}", hang)
daemon.LEAVE_S = 0.5
{PROGRAM}
"""


def is_refused(daemon: Daemon) -> bool:
    """A new request gets no connection, or a 503."""
    try:
        return daemon.post("slow").status_code == 503
    except httpx.TransportError:
        return True


@STOPPING
def test_an_idle_daemon_ends_with_its_workers(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, and nothing is left."""
    daemon = serve(models=echo(tmp_path))
    assert daemon.post("echo").status_code == 200
    daemon.signal(number)
    assert daemon.ended() == 0


@STOPPING
def test_a_stream_in_flight_finishes(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    """To its last word and `[DONE]`, then the daemon ends as if idle."""
    daemon = serve(models=echo(tmp_path, "slow", tokens_per_s=50))
    with daemon.stream("slow", max_tokens=20) as stream:
        next(stream)
        daemon.signal(number)
        *rest, last = stream
    assert text_of(iter(rest)).split() == (["one", "two", "three"] * 7)[:20]
    assert last == {"done": True}
    assert daemon.ended() == 0


def test_a_whole_answer_in_flight_finishes(serve: Serve, tmp_path: Path) -> None:
    """A client that does not stream is owed the same."""
    daemon = serve(models=echo(tmp_path, "slow", tokens_per_s=20))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(daemon.post, "slow", max_tokens=20)
        until(lambda: daemon.model("slow")["active"])
        daemon.signal(signal.SIGTERM)
        assert answer.result().json()["usage"]["completion_tokens"] == 20
    assert daemon.ended() == 0


def test_new_requests_are_refused_while_it_drains(serve: Serve, tmp_path: Path) -> None:
    """The stream that runs is not disturbed by them. Nor is anybody led to it any more: its port is free, and
    who has it next would be sent our key."""
    daemon = serve(models=echo(tmp_path, "slow", tokens_per_s=20))
    with daemon.stream("slow", max_tokens=30) as stream:
        next(stream)
        daemon.signal(signal.SIGTERM)
        until(lambda: is_refused(daemon))
        assert not (daemon.state_dir / "daemon.json").exists()
        assert next(stream), "the stream still ran when others were refused"
        assert list(stream)[-1] == {"done": True}
    assert daemon.ended() == 0


def test_who_still_waits_is_told_so(serve: Serve, tmp_path: Path) -> None:
    """A 503 at once, not a place in a queue that nobody serves; nobody knows when there is another daemon."""
    daemon = serve(models=echo(tmp_path, "slow", parallel=1, tokens_per_s=20))
    with ThreadPoolExecutor() as pool, daemon.stream("slow", max_tokens=30) as stream:
        next(stream)
        waiting = pool.submit(daemon.post, "slow")
        until(lambda: daemon.model("slow")["queued"])
        daemon.signal(signal.SIGTERM)
        answer = waiting.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert "retry-after" not in answer.headers
        assert list(stream)[-1] == {"done": True}
    assert daemon.ended() == 0


def test_an_endless_stream_is_ended_by_the_drain_limit(serve: Serve, tmp_path: Path) -> None:
    """With an error event, never in silence."""
    models = "[server]\ndrain_s = 0.3\n" + echo(tmp_path, "slow", tokens_per_s=20)
    daemon = serve(models=models)
    with daemon.stream("slow", max_tokens=100_000) as stream:
        next(stream)
        daemon.signal(signal.SIGTERM)
        *_, last = stream
    assert last["error"]["code"] == "shutting_down"
    assert daemon.ended() == 0


def test_a_second_signal_ends_it_at_once(serve: Serve, tmp_path: Path) -> None:
    """Exit code 4, whatever runs; workers and the discovery file go, too."""
    daemon = serve(models=echo(tmp_path, "slow", tokens_per_s=20))
    with daemon.stream("slow", max_tokens=100_000) as stream:
        next(stream)
        daemon.signal(signal.SIGTERM)
        until(lambda: "signal received" in daemon.log)
        daemon.signal(signal.SIGTERM)
        daemon.process.wait(END_S)
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)
    until(lambda: not daemon.processes())
    assert daemon.ended() == 4
    assert not (daemon.state_dir / "daemon.json").exists()


def test_a_load_in_progress_does_not_hold_it_up(serve: Serve, tmp_path: Path) -> None:
    """Nobody will use the model: who waits for it is told, and its worker ends."""
    daemon = serve(models=echo(tmp_path, "heavy", load_s=100))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(daemon.post, "heavy")
        until(lambda: daemon.model("heavy")["state"] == "starting")
        daemon.signal(signal.SIGTERM)
        assert waiting.result().status_code == 503
    assert daemon.ended() == 0


def test_a_look_at_a_file_that_hangs_does_not_hold_it_up(serve: Serve, tmp_path: Path) -> None:
    """A disk may be gone: who waits for it is told, and the process ends without the thread."""
    daemon = serve(models=echo(tmp_path), program=hanging("pilotlight.registry.costs.Costs.estimate"))
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(daemon.post, "echo") for _ in range(2)]
        until(lambda: "hangs from now on" in daemon.log)
        daemon.signal(signal.SIGTERM)
        answers = [one.result() for one in waiting]
    assert {(one.status_code, one.json()["error"]["code"]) for one in answers} == {(503, "shutting_down")}
    assert daemon.ended() == 0


@pytest.mark.parametrize(("fault", "code"), [("", 0), (FAILING, 1)], ids=["stopped", "failed"])
def test_a_thread_that_hangs_does_not_hold_it_up(serve: Serve, fault: str, code: int) -> None:
    """Nor does it change the exit code."""
    daemon = serve(program=fault + hanging("pilotlight.registry.archive.tidy"))
    until(lambda: "hangs from now on" in daemon.log)
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == code
    assert "a thread or a worker that hangs is left behind" in daemon.log


def test_a_worker_that_does_not_react_is_killed(serve: Serve, tmp_path: Path) -> None:
    """A stopped process cannot end itself when it is asked to."""
    daemon = serve(models=echo(tmp_path), program=HASTY)
    assert daemon.post("echo").status_code == 200
    daemon.worker("echo").suspend()
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 0


def test_a_client_that_only_connected_does_not_hold_it_up(serve: Serve) -> None:
    """An idle connection is no request in flight."""
    daemon = serve()
    with httpx.Client() as client:
        assert client.get(f"{daemon.url}/ready").status_code == 200
        daemon.signal(signal.SIGTERM)
        assert daemon.ended() == 0


def test_clients_that_stopped_in_the_middle_do_not_hold_it_up(serve: Serve, tmp_path: Path) -> None:
    """A half-sent request gets the drain limit and no more. What a client does not read cannot be sent to its
    end, so it is cut off after that, too."""
    daemon = serve(models="[server]\ndrain_s = 1\n" + echo(tmp_path, "slow", tokens_per_s=50))
    long_word = [{"role": "user", "content": "x" * 200_000}]
    with (
        socket.create_connection(daemon.address) as half,
        daemon.stream("slow", messages=long_word, max_tokens=100_000) as stream,
    ):
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        next(stream)
        until(lambda: daemon.model("slow")["active"] == 1)
        daemon.signal(signal.SIGTERM)
        assert daemon.ended() == 0
