"""More requests than may wait: refused at once, with a time to come back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving import Daemon, echo, until

Serve = Callable[..., Daemon]


@pytest.fixture
def daemon(serve: Serve, tmp_path: Path) -> Daemon:
    """One answer at a time, and one request may wait."""
    models = "[server]\nqueue = 1\naccept_s = 0\n" + echo(tmp_path, "slow", parallel=1, tokens_per_s=20)
    return serve(models=models)


def test_a_request_too_many_is_told_to_come_back(daemon: Daemon) -> None:
    """A 429 with the numbers, and with Retry-After as it is known how long an answer takes."""
    assert daemon.post("slow", max_tokens=1).status_code == 200
    with daemon.stream("slow", max_tokens=1000) as running:
        next(running)
        with daemon.stream("slow"):
            until(lambda: daemon.model("slow")["queued"] == 1)
            answer = daemon.post("slow")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
    assert "1 interactive requests are waiting; at most 1 of a class may" in error["message"]


def test_an_answer_says_how_long_its_request_waited(daemon: Daemon) -> None:
    """Behind others, and for the model to be loaded; the metrics have it, too."""
    first = daemon.post("slow", max_tokens=1)
    assert int(first.headers["x-queue-wait-ms"]) > 0
    with ThreadPoolExecutor() as pool:
        with daemon.stream("slow", max_tokens=1000) as running:
            next(running)
            waiting = pool.submit(daemon.post, "slow", max_tokens=1)
            assert until(lambda: daemon.model("slow")["queued"] == 1)
        assert int(waiting.result().headers["x-queue-wait-ms"]) > 0
    wait = 'pilotlight_queue_wait_seconds_count{class="interactive",model="slow"} 3.0'
    assert wait in daemon.get("/metrics").text


def test_who_leaves_the_queue_makes_room(daemon: Daemon) -> None:
    """For the next; the one that runs goes on."""
    with daemon.stream("slow", max_tokens=1000) as running:
        next(running)
        with daemon.stream("slow"):
            until(lambda: daemon.model("slow")["queued"] == 1)
        until(lambda: daemon.model("slow")["queued"] == 0)
        with daemon.stream("slow"):
            until(lambda: daemon.model("slow")["queued"] == 1)
        assert next(running)


def test_those_who_wait_are_served_in_order(serve: Serve, tmp_path: Path) -> None:
    """First come, first served."""
    daemon = serve(models="[server]\naccept_s = 0\n" + echo(tmp_path, "slow", parallel=1, tokens_per_s=20))
    with daemon.stream("slow", max_tokens=10) as first, daemon.stream("slow", max_tokens=10) as second:
        until(lambda: daemon.model("slow")["queued"] == 1)
        with daemon.stream("slow", max_tokens=1) as third:
            assert list(third)[-1] == {"done": True}
            assert daemon.model("slow")["active"] == 0, "the second had its turn before"
        assert list(first)[-1] == list(second)[-1] == {"done": True}
