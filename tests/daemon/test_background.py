"""Interactive requests beside others, in a whole daemon."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import END_S, Daemon, chat, echo, until

Serve = Callable[..., Daemon]


@pytest.fixture
def daemon(serve: Serve, tmp_path: Path) -> Daemon:
    """Two models that say 50 words a second, one answer at a time; comments come often."""
    settings = "[server]\naccept_s = 0\nkeepalive_s = 0.05\n"
    models = "".join(echo(tmp_path, name, parallel=1, tokens_per_s=50) for name in ("slow", "other"))
    return serve(models=settings + models)


@contextmanager
def lines(daemon: Daemon, model: str, **fields: Any) -> Iterator[Iterator[str]]:
    """What a stream says, line by line, comments too."""
    body = chat(model, stream=True, **fields)
    with httpx.stream("POST", f"{daemon.url}/v1/chat/completions", json=body, timeout=END_S) as response:
        yield (line for line in response.iter_lines() if line)


def until_line(said: Iterator[str], text: str) -> None:
    assert any(text in line for line in said), f"the stream never says {text!r}"


def test_what_runs_in_the_background_is_paused_for_somebody(daemon: Daemon) -> None:
    """Though it holds the only place; it says so, and goes on afterwards."""
    with lines(daemon, "slow", service_tier="flex", max_tokens=100) as said:
        until_line(said, "one")
        with daemon.stream("slow", max_tokens=1000) as running:
            next(running)
            until_line(said, ": paused for interactive requests")
            model = daemon.model("slow")
            assert model["paused"] == 1
            assert model["classes"]["background"] == {"active": 1, "queued": 0}
            assert model["classes"]["interactive"] == {"active": 1, "queued": 0}
        until_line(said, "[DONE]")
    assert daemon.model("slow")["paused"] == 0
    metrics = daemon.get("/metrics").text
    assert 'pilotlight_pauses_total{model="slow"} 1.0' in metrics
    assert 'pilotlight_paused_seconds_total{model="slow"} 0.0\n' not in metrics


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has these policies")
def test_a_worker_gives_way_to_other_programs_while_nobody_waits_for_it(serve: Serve, tmp_path: Path) -> None:
    """All of its threads do, and none any more as soon as somebody asks."""
    environ = {"PILOTLIGHT_POLICY_BACKGROUND_PRIORITY": "low", "PILOTLIGHT_ACCEPT_S": "0"}
    daemon = serve(models=echo(tmp_path, tokens_per_s=50), environ=environ)
    with lines(daemon, "echo", service_tier="flex", max_tokens=1000):
        assert until(lambda: daemon.model("echo")["priority"] == "low")
        assert policies(daemon) <= {os.SCHED_IDLE, os.SCHED_BATCH}
        with daemon.stream("echo", max_tokens=1000) as running:
            next(running)
            assert policies(daemon) == {os.SCHED_OTHER}
        assert until(lambda: daemon.model("echo")["priority"] == "low")
    assert until(lambda: policies(daemon) == {os.SCHED_OTHER})


def policies(daemon: Daemon) -> set[int]:
    """Of the threads of its worker."""
    threads = daemon.worker("echo").threads()
    return {os.sched_getscheduler(thread.id) for thread in threads}


def test_somebody_on_another_model_goes_first_too(daemon: Daemon) -> None:
    """They share the machine."""
    assert daemon.post("other", max_tokens=1).status_code == 200
    with lines(daemon, "slow", service_tier="flex", max_tokens=100) as said:
        until_line(said, "one")
        with daemon.stream("other", max_tokens=1000) as running:
            next(running)
            until_line(said, ": paused for interactive requests")
        until_line(said, "[DONE]")


def test_who_waits_is_told_where_it_stands(daemon: Daemon) -> None:
    """Behind those who came before and those who are more urgent."""
    assert daemon.post("slow", max_tokens=1).status_code == 200
    with daemon.stream("slow", max_tokens=1000) as running:
        next(running)
        with lines(daemon, "slow", service_tier="flex") as said:
            until_line(said, ": waiting, position 1, about ")
            with daemon.stream("slow", max_tokens=1):
                until_line(said, ": waiting, position 2, about ")


def test_the_background_fills_nobody_s_queue(serve: Serve, tmp_path: Path) -> None:
    """It has places of its own."""
    settings = "[server]\naccept_s = 0\nqueue = 1\n"
    daemon = serve(models=settings + echo(tmp_path, "slow", parallel=1, tokens_per_s=50))
    with lines(daemon, "slow", service_tier="flex", max_tokens=1000) as running:
        until_line(running, "one")
        with lines(daemon, "slow", service_tier="flex"):
            until(lambda: daemon.model("slow")["classes"]["background"]["queued"] == 1)
            refused = daemon.post("slow", service_tier="flex")
            assert refused.status_code == 429
            assert "1 background requests are waiting" in refused.json()["error"]["message"]
            assert daemon.post("slow", max_tokens=2).status_code == 200


def test_a_client_named_in_the_settings_is_in_the_background(serve: Serve, tmp_path: Path) -> None:
    """Without sending anything for it."""
    settings = '[classes.background]\nagents = ["indexer/*"]\n'
    daemon = serve(models=settings + echo(tmp_path))
    answer = httpx.post(
        f"{daemon.url}/v1/chat/completions",
        json=chat("echo"),
        headers={"user-agent": "Indexer/2"},
        timeout=END_S,
    )
    assert answer.json()["service_tier"] == "flex"
    assert answer.headers["x-request-class"] == "background"
