"""The daemon's open files: how many it may have, what connections take of them, and what is without any."""

import resource
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from pilotlight.api.connection import RESERVE
from pilotlight.process import MOST_DESCRIPTORS
from serving import END_S, NO_TLS, PROGRAM, Daemon, chat, echo, text_of, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system tells the limits of others")

Serve = Callable[..., Daemon]

FEW = 2 * RESERVE
"""That a daemon may have open in all."""

WITH_FEW = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, %d))\n{PROGRAM}"
"""A daemon that is given few, and may have so many."""


def test_a_daemon_takes_as_many_descriptors_as_it_may(serve: Serve, tmp_path: Path) -> None:
    """Not the few that it is given at its start. Nor are its workers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    daemon = serve(models=echo(tmp_path), program=WITH_FEW % hard)
    assert daemon.post("echo", max_tokens=1).status_code == 200
    for process in (psutil.Process(daemon.pid), daemon.worker("echo")):
        assert process.rlimit(psutil.RLIMIT_NOFILE) == (min(hard, MOST_DESCRIPTORS), hard)


def test_connections_leave_descriptors_for_everything_else(serve: Serve, tmp_path: Path) -> None:
    """More of them than it may have, which say nothing: who was there before is served, and models load."""
    daemon = serve(models=echo(tmp_path) + echo(tmp_path, "later"), program=WITH_FEW % FEW)
    with httpx.Client(base_url=daemon.url, timeout=END_S, verify=NO_TLS) as client, ExitStack() as idle:
        assert client.get("/ready").status_code == 200
        for _ in range(FEW + 20):
            idle.enter_context(socket.create_connection(daemon.address))
        until(lambda: 'event="connection refused"' in daemon.log)
        until(lambda: psutil.Process(daemon.pid).num_fds() < FEW - RESERVE / 2)
        for model in ("echo", "later"):
            answer = client.post("/v1/chat/completions", json=chat(model))
            assert answer.status_code == 200, answer.text
    until(lambda: psutil.Process(daemon.pid).num_fds() < RESERVE)
    assert daemon.post("echo").status_code == 200


def test_answers_end_though_no_descriptor_is_left(serve: Serve, tmp_path: Path) -> None:
    """Whatever took them. What cannot be measured is not, and the daemon is there afterwards."""
    models = "[power]\nwatts_per_core = 5\n" + echo(tmp_path, tokens_per_s=20)
    daemon = serve("--log-level", "debug", models=models)
    process = psutil.Process(daemon.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    with daemon.stream("echo", max_tokens=30) as stream:  # so long that its memory is due to be looked at
        next(stream)
        process.rlimit(psutil.RLIMIT_NOFILE, (0, hard))
        assert text_of(stream)
        until(lambda: 'event="worker counted"' in daemon.log)
    process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    assert daemon.post("echo").status_code == 200
