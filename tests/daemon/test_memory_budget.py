"""Models under a memory budget, with real workers: what they hold together, and what is left of them."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gguf_factory import write_hollow_gguf
from serving import NO_TLS, PROGRAM, Daemon, echo, table, until

MIB = 2**20

ADDRESSES = 2048 * MIB
"""Of each process: plenty for a daemon, and for a worker with a small model."""

Serve = Callable[..., Daemon]


class Sampler:
    """Sums what the workers hold, in bytes, every 50 ms; pages they share count once."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = psutil.Process(daemon.pid)
        self.sums: list[int] = []

    def sample(self) -> None:
        total = 0
        for worker in self._daemon.children():
            with suppress(psutil.Error):  # it has just ended
                total += worker.memory_full_info().pss
        self.sums.append(total)


@contextmanager
def sampling(daemon: Daemon) -> Iterator[Sampler]:
    """In a thread of its own while the block lasts."""
    sampler, is_over = Sampler(daemon), threading.Event()

    def run() -> None:
        while not is_over.wait(0.05):
            sampler.sample()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sampler
    finally:
        is_over.set()
        thread.join()


def three(tiny_gguf: Path) -> str:
    """The same small model under three names."""
    return "".join(table(name, tiny_gguf, threads=1, parallel=4) for name in "abc")


def evictions(daemon: Daemon, reason: str) -> int:
    """How many models were unloaded for it."""
    lines = daemon.get("/metrics").text.splitlines()
    found = [
        line for line in lines if line.startswith("pilotlight_evictions_total{") and f'"{reason}"' in line
    ]
    return sum(int(float(line.split()[-1])) for line in found)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="PSS is Linux's")
def test_three_models_share_room_for_two(serve: Serve, tiny_gguf: Path) -> None:
    """Twelve clients ask them by turns: all are answered, and the workers never hold more than they may."""
    daemon = serve("--memory-budget", "170MiB", models="[server]\nbuiltin = false\n" + three(tiny_gguf))

    def client(number: int) -> list[int]:
        models = ["abc"[(number * 7 + turn * turn) % 3] for turn in range(8)]
        return [daemon.post(model, max_tokens=8, patience_s=60).status_code for model in models]

    with sampling(daemon) as sampler, ThreadPoolExecutor(12) as pool:
        statuses = [status for answers in pool.map(client, range(12)) for status in answers]
    assert statuses == [200] * 96
    assert max(sampler.sums) <= 170 * MIB * 1.05
    assert evictions(daemon, "room") >= 1
    assert sum(daemon.model(name)["state"] == "ready" for name in "abc") == 2


def test_a_model_that_can_never_fit_is_refused_before_it_loads(serve: Serve, tiny_gguf: Path) -> None:
    """With the numbers, in both ways to ask for it."""
    daemon = serve("--memory-budget", "48MiB", models=table("tiny", tiny_gguf))
    for answer in (daemon.post("tiny"), admin(daemon, "load", "tiny")):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "model_does_not_fit")
        assert "memory.budget is 48 MiB; raise it to" in error["message"]
    assert [process.pid for process in daemon.processes()] == [daemon.pid]


def test_a_model_that_does_not_fit_at_start_is_a_notice(serve: Serve, tiny_gguf: Path) -> None:
    """The others are served."""
    models = table("tiny", tiny_gguf)
    daemon = serve("--memory-budget", "48MiB", "--model", "tiny", models=models)
    assert "memory.budget is 48 MiB" in until(lambda: daemon.notices().get("not_loaded_tiny"))["text"]


def test_a_model_is_loaded_and_stopped_on_demand(serve: Serve, tmp_path: Path) -> None:
    """Its memory is free when the answer comes."""
    daemon = serve(models=echo(tmp_path))
    loaded = admin(daemon, "load", "echo").json()
    assert (loaded["state"], loaded["unload_in_s"]) == ("ready", pytest.approx(900, abs=5))
    pid = daemon.worker("echo").pid
    stopped = admin(daemon, "unload", "echo").json()
    assert (stopped["state"], stopped["bytes_charged"]) == ("stopped", 0)
    assert not psutil.pid_exists(pid)
    assert evictions(daemon, "asked") == 1


def test_a_model_goes_with_its_answer_if_the_request_says_so(serve: Serve, tmp_path: Path) -> None:
    """keep_alive = 0, as in Ollama; the daemon has no timer then."""
    daemon = serve(models=echo(tmp_path))
    assert daemon.post("echo", keep_alive=0).status_code == 200
    until(lambda: daemon.model("echo")["state"] == "stopped")
    assert evictions(daemon, "expired") == 1


def test_a_model_expires_after_its_keep_alive(serve: Serve, tmp_path: Path) -> None:
    """Its own setting; a pinned one beside it stays."""
    short, kept = echo(tmp_path, "short"), echo(tmp_path, "kept")
    daemon = serve(models=f'{short}keep_alive = "200ms"\n{kept}keep_alive = 0\npin = true\n')
    assert [daemon.post(name).status_code for name in ("kept", "short")] == [200, 200]
    until(lambda: daemon.model("short")["state"] == "stopped")
    assert daemon.model("kept")["state"] == "ready"
    assert daemon.model("kept")["unload_in_s"] is None


def test_a_stop_waits_for_what_runs(serve: Serve, tmp_path: Path) -> None:
    """And who asks meanwhile gets a fresh worker."""
    daemon = serve(models="[server]\naccept_s = 0\n" + echo(tmp_path, tokens_per_s=50))
    with daemon.stream("echo", max_tokens=20) as stream, ThreadPoolExecutor(2) as pool:
        next(stream)
        stopping = pool.submit(admin, daemon, "unload", "echo")
        asking = pool.submit(daemon.post, "echo", max_tokens=1)
        assert len(list(stream)) > 20
        assert stopping.result().status_code == asking.result().status_code == 200


def test_a_load_is_broken_off_by_a_stop(serve: Serve, tmp_path: Path) -> None:
    """Who asked for it hears so, and nothing is left of it."""
    daemon = serve(models=echo(tmp_path, load_s=1000))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(admin, daemon, "load", "echo")
        until(lambda: daemon.model("echo")["state"] == "starting")
        assert admin(daemon, "unload", "echo").json()["state"] == "stopped"
        assert loading.result().json()["error"]["code"] == "model_unloaded"
    assert [process.pid for process in daemon.processes()] == [daemon.pid]


def test_who_leaves_a_load_does_not_wait_for_it(serve: Serve, tmp_path: Path) -> None:
    """Ctrl-C in `pilotlight load`: nobody else has to make room for it then."""
    daemon = serve(models=echo(tmp_path, load_s=1000))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(
            httpx.post,
            f"{daemon.url}/admin/models/load",
            json={"model": "echo"},
            headers=daemon.key,
            timeout=1,
            verify=NO_TLS,
        )
        until(lambda: daemon.model("echo")["queued"])
        assert isinstance(loading.exception(), httpx.ReadTimeout)
    until(lambda: not daemon.model("echo")["queued"])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")
def test_nothing_is_left_of_models_that_came_and_went(serve: Serve, tmp_path: Path) -> None:
    """No process, no descriptor, no file, and no memory: what leaks grows every time."""
    daemon = serve(models=echo(tmp_path), program=PROGRAM)
    process = psutil.Process(daemon.pid)

    def bytes_after_some() -> int:
        for _ in range(5):
            assert admin(daemon, "load", "echo").status_code == 200
            assert admin(daemon, "unload", "echo").status_code == 200
        return process.memory_info().rss

    bytes_before = bytes_after_some()
    before, num_threads = left(daemon), process.num_threads()
    sizes = [bytes_before, *(bytes_after_some() for _ in range(3))]
    # What was counted before may have held a connection that was about to close.
    until(lambda: all(now <= then for now, then in zip(left(daemon), before, strict=True)))
    assert process.num_threads() < num_threads + 10, "some are kept for a while, but none for each cycle"
    assert min(later - earlier for earlier, later in pairwise(sizes)) < MIB / 4
    assert [process.pid for process in daemon.processes()] == [daemon.pid]


KILLS_COUNT = f"""
import itertools
from pilotlight.registry import oom
oom.kills = itertools.count().__next__
{PROGRAM}
"""
"""A daemon on a machine that kills somebody for lack of memory all the time."""


@pytest.mark.parametrize(
    "knobs", [{"die_after_tokens": 1}, {"crash_modes": ["full"], "crash_signal": "SIGKILL"}]
)
def test_a_worker_killed_for_lack_of_memory_is_told_as_that(
    serve: Serve, tmp_path: Path, knobs: dict[str, Any]
) -> None:
    """Running or loading."""
    daemon = serve(models=echo(tmp_path, **knobs), program=KILLS_COUNT)
    error = daemon.post("echo").json()["error"]
    assert (error["code"], error["source"]) == ("out_of_memory", "worker")
    assert "the system killed its worker" in error["message"]
    assert daemon.get("/ready").status_code == 200


def test_a_model_whose_worker_was_killed_is_charged_more(serve: Serve, tmp_path: Path) -> None:
    """From then on: it fitted just so."""
    models = echo(tmp_path, crash_modes=["full"], crash_signal="SIGKILL")
    daemon = serve("--memory-budget", "64MiB", models=models, program=KILLS_COUNT)
    codes = [daemon.post("echo").json()["error"]["code"] for _ in range(2)]
    assert codes == ["out_of_memory", "model_does_not_fit"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_load_with_too_little_memory_fails_clearly(serve: Serve, tmp_path: Path) -> None:
    """It was thought to fit, and its process may not have that much; the daemon and other models go on."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({ADDRESSES},) * 2)"
    greedy = write_hollow_gguf(tmp_path / "greedy.gguf", feed_forward=2**23)
    models = table("greedy", greedy) + echo(tmp_path)
    daemon = serve("--memory-budget", "1TiB", models=models, program=f"{limit}\n{PROGRAM}")
    error = daemon.post("greedy", patience_s=50).json()["error"]
    assert (error["code"], error["source"]) == ("worker_failed", "worker")
    assert error["message"].startswith("greedy: ")
    assert daemon.post("echo").status_code == 200
    assert len(daemon.processes()) == 2


def left(daemon: Daemon) -> tuple[int, set[Path]]:
    """Its descriptors and files. (A connection takes a moment to close.)"""
    return psutil.Process(daemon.pid).num_fds(), set(daemon.state_dir.rglob("*"))


def admin(daemon: Daemon, what: str, model: str) -> httpx.Response:
    """Load or unload."""
    return daemon.admin(f"models/{what}", model=model)
