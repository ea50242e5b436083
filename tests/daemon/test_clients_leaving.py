"""Clients that leave: what they asked for is not computed for nobody, and nothing of it stays behind."""

import random
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest

from gguf_factory import write_tiny_gguf
from serving import Daemon, chat, echo, table, until

Serve = Callable[..., Daemon]

NUM_CLIENTS = 200
NUM_AT_ONCE = 40


class Visitor:
    """A client that asks for much and leaves early, at a moment that its seed decides."""

    def __init__(self, daemon: Daemon, client: httpx.AsyncClient, seed: int) -> None:
        self._random = random.Random(seed)
        self._url = f"{daemon.url}/v1/chat/completions"
        self._address = daemon.address
        self._client = client

    async def visit(self) -> None:
        ways = [self._leave_stream, self._leave_stream, self._leave_whole, self._leave_early]
        await self._random.choice(ways)()

    def _body(self, **fields: bool) -> dict[str, object]:
        prompt = "word " * self._random.choice([1, 5, 20, 200])
        messages = [{"role": "user", "content": prompt}]
        return chat("tiny", messages=messages, max_tokens=300, n=self._random.choice([1, 1, 1, 3]), **fields)

    async def _leave_stream(self) -> None:
        """After some lines of the stream, or none."""
        num_lines = self._random.choice([0, 0, 1, 3, 10, 50])
        async with self._client.stream("POST", self._url, json=self._body(stream=True)) as response:
            assert response.status_code == 200
            async for _ in response.aiter_lines():
                num_lines -= 1
                if num_lines < 0:
                    return

    async def _leave_whole(self) -> None:
        """While the answer is made, or already while the request waits."""
        with anyio.move_on_after(self._random.uniform(0, 0.5)):
            await self._client.post(self._url, json=self._body())

    async def _leave_early(self) -> None:
        """In the middle of the request."""
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        async with await anyio.connect_tcp(*self._address) as stream:
            await stream.send((head + b'{"model": "tiny"')[: self._random.randint(1, 90)])


async def visit_all(daemon: Daemon) -> None:
    """Many at the same time; a failure of one is a failure of all."""
    limiter = anyio.CapacityLimiter(NUM_AT_ONCE)
    limits = httpx.Limits(max_connections=None)

    async def visit(visitor: Visitor) -> None:
        async with limiter:
            await visitor.visit()

    async with httpx.AsyncClient(limits=limits, timeout=None) as client, anyio.create_task_group() as tasks:
        for seed in range(NUM_CLIENTS):
            tasks.start_soon(visit, Visitor(daemon, client, seed))


def test_many_who_leave_at_random_moments_leave_nothing_behind(serve: Serve, tiny_gguf: Path) -> None:
    """No sequence, no place in the queue, no token of the memory: the worker's own check finds nothing."""
    models = "[server]\nqueue = 200\n" + table("tiny", tiny_gguf, context=8192)
    daemon = serve("--log-level", "debug", models=models)
    assert daemon.post("tiny", max_tokens=1).status_code == 200
    worker = daemon.worker("tiny")
    anyio.run(visit_all, daemon)
    assert daemon.faults("tiny") == []
    assert 'status="499"' in daemon.get("/metrics").text
    assert worker.is_running()


def test_who_leaves_a_stream_is_not_computed_for(serve: Serve, tmp_path: Path) -> None:
    """Its sequence is free at once, long before it would have ended."""
    daemon = serve("--log-level", "debug", models=echo(tmp_path, "slow", tokens_per_s=20))
    with daemon.stream("slow", max_tokens=100_000) as stream:
        next(stream)
    assert daemon.faults("slow") == []


def test_who_leaves_while_the_prompt_is_read_is_not_computed_for(serve: Serve, tmp_path: Path) -> None:
    """No text ever comes of it: a batch of this model takes a good part of a second, and there are many."""
    large = write_tiny_gguf(tmp_path / "large.gguf", width=512, layers=8, context=16384)
    daemon = serve("--log-level", "debug", models=table("large", large, context=16384, threads=1))
    assert daemon.post("large", max_tokens=1).status_code == 200
    long = [{"role": "user", "content": "long " * 2000}]
    with daemon.stream("large", messages=long, max_tokens=5000):  # begins when the worker has admitted it
        assert daemon.model("large")["active"]
    assert daemon.faults("large") == []
    assert 'pilotlight_tokens_total{kind="completion",model="large"} 1.0' in daemon.get("/metrics").text


def test_who_leaves_before_a_whole_answer_is_not_computed_for(serve: Serve, tmp_path: Path) -> None:
    """The same without a stream, where the server has to watch for it by itself."""
    daemon = serve("--log-level", "debug", models=echo(tmp_path, "slow", tokens_per_s=20))
    assert daemon.post("slow", max_tokens=1).status_code == 200
    with pytest.raises(httpx.ReadTimeout):
        daemon.post("slow", max_tokens=100_000, patience_s=0.3)
    assert daemon.faults("slow") == []


def test_a_sequence_that_a_worker_leaks_is_noticed(serve: Serve, tmp_path: Path) -> None:
    """The count of what it holds is compared with what was asked of it: here is one that differs."""
    daemon = serve(models=echo(tmp_path, tokens_per_s=20, ignore_cancel=True))
    with daemon.stream("echo", max_tokens=100_000) as stream:
        next(stream)
    notice = until(lambda: daemon.notices().get("worker_fault_echo"))
    assert (notice["severity"], notice["text"]) == ("error", "1 sequences belong to no request")
