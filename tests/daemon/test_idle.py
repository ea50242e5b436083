"""Nobody asks, nobody wakes: an idle daemon and its loaded workers cost no power."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import PROGRAM, Daemon, echo, table, text_of

WATCH_S = 10
"""Nobody wakes even once in it. What wakes every few seconds leaves some seconds quiet."""

SETTLED_S = 30
"""When that has to be over."""


def switches(pid: int) -> int:
    """Voluntary context switches of all threads: how often one of them went to sleep again."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        match = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)
        assert match
        found += int(match[1])
    return found


def wait_until_quiet(pids: list[int]) -> None:
    """Until nobody woke in `WATCH_S` windows of a second in a row. Time passing is what is tested here."""
    deadline = time.monotonic() + SETTLED_S
    num_quiet, before = 0, [switches(pid) for pid in pids]
    while num_quiet < WATCH_S:
        assert time.monotonic() < deadline, f"still waking after {SETTLED_S} s: {before} switches of {pids}"
        time.sleep(1)
        now = [switches(pid) for pid in pids]
        num_quiet = num_quiet + 1 if now == before else 0
        before = now


@pytest.mark.skipif(sys.platform != "linux", reason="counts context switches in /proc")
def test_nothing_wakes_when_nobody_asks(
    serve: Callable[..., Daemon], tmp_path: Path, tiny_gguf: Path
) -> None:
    """After a look for models and streamed answers of every kind of worker: not the daemon, not they."""
    daemon = serve(models=echo(tmp_path) + table("tiny", tiny_gguf), program=PROGRAM)
    assert daemon.get("/v1/models").status_code == 200
    for model in ("echo", "tiny", "pilot-onnx", "pilot-mlx"):
        with daemon.stream(model, max_tokens=20) as stream:
            assert text_of(stream)
    pids = [process.pid for process in daemon.processes()]
    assert len(pids) == 5
    wait_until_quiet(pids)
