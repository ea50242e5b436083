"""A bug in the daemon's own loop: the process ends loudly, and something else starts it again."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serving import PROGRAM, Daemon, echo

BROKEN = f"""
from pilotlight.scheduler.scheduler import Scheduler

def on_request_done(self, request_id, error=None):
    raise ZeroDivisionError("a secret")

Scheduler.on_request_done = on_request_done
{PROGRAM}
"""


def test_a_bug_in_the_scheduler_ends_the_daemon(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """Exit code 1, where it happened in the log, no worker and no discovery file left."""
    daemon = serve(models=echo(tmp_path, tokens_per_s=20), program=BROKEN)
    with daemon.stream("echo", max_tokens=1000) as other:
        next(other)
        daemon.post("echo", max_tokens=1)
        with pytest.raises(httpx.TransportError):
            list(other)
    assert daemon.ended() == 1
    assert "the daemon failed" in daemon.log
    assert "error=ZeroDivisionError" in daemon.log
    assert "in on_request_done" in daemon.log
    assert "a secret" not in daemon.log
    assert not (daemon.state_dir / "daemon.json").exists()
