"""The daemon dies without a chance to clean up: its workers notice and end, whatever they are doing."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from gguf_factory import write_tiny_gguf
from serving import Daemon, echo, table, until

Serve = Callable[..., Daemon]

GONE_S = 1.0
"""What is promised. They need milliseconds."""


def kill(daemon: Daemon) -> None:
    """Everything of it must be gone then."""
    daemon.kill()
    until(lambda: not daemon.processes(), within_s=GONE_S)


def test_an_idle_worker_ends(serve: Serve, tmp_path: Path, tiny_gguf: Path) -> None:
    """Of either kind."""
    daemon = serve(models=echo(tmp_path) + table("tiny", tiny_gguf))
    assert daemon.post("echo").status_code == daemon.post("tiny", max_tokens=1).status_code == 200
    assert len(daemon.processes()) == 3
    kill(daemon)


def test_a_loading_worker_ends(serve: Serve, tmp_path: Path) -> None:
    """Though its main thread waits for the load."""
    daemon = serve("--model", "heavy", models=echo(tmp_path, "heavy", load_s=1000))
    until(lambda: len(daemon.processes()) == 2)
    until(lambda: daemon.model("heavy")["state"] == "starting")
    kill(daemon)


def test_a_worker_in_the_middle_of_a_long_prompt_ends(serve: Serve, tmp_path: Path) -> None:
    """Though native code computes: a batch of this model takes a good part of a second."""
    large = write_tiny_gguf(tmp_path / "large.gguf", width=512, layers=8, context=16384)
    daemon = serve(models="[server]\naccept_s = 0\n" + table("large", large, context=16384, threads=1))
    assert daemon.post("large", max_tokens=1).status_code == 200
    long = [{"role": "user", "content": "long " * 2000}]
    with daemon.stream("large", messages=long) as stream:
        until(lambda: daemon.model("large")["active"])
        kill(daemon)
        with suppress(httpx.TransportError):  # the peer is gone before the stream ended
            assert not list(stream)


def test_the_next_start_is_not_confused_by_what_is_left(serve: Serve) -> None:
    """The discovery file still names the dead one."""
    first = serve()
    kill(first)
    assert (first.state_dir / "daemon.json").exists()
    second = serve()
    assert second.get("/ready").status_code == 200
