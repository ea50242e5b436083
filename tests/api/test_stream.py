"""Streams and disconnects on real sockets: what is sent when, and that everything is released."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream
from fake_service import FakeService, fail, hold
from sse_starlette import sse
from structlog.testing import capture_logs

from pilotlight.core import Accepted, Chunk, Finished, FinishReason
from pilotlight.errors import Busy, WorkerFailed
from pilotlight.policy.settings import rules_of
from pilotlight.power.reading import Reading, Supply
from pilotlight.scheduler.gate import Policy

PATH = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def sent(url: str, body: dict[str, Any], *headers: str) -> AsyncIterator[ByteStream]:
    """A connection on which a request was sent; leaving the block leaves the server."""
    content = json.dumps(body)
    lines = [
        f"POST {PATH} HTTP/1.1",
        "host: localhost",
        f"content-length: {len(content)}",
        *headers,
        "",
        content,
    ]
    async with await anyio.connect_tcp("127.0.0.1", httpx.URL(url).port or 0) as stream:
        await stream.send("\r\n".join(lines).encode())
        yield stream


async def until(stream: ByteStream, text: bytes) -> bytes:
    received = b""
    while text not in received:
        received += await stream.receive()
    return received


async def test_a_chunk_is_sent_when_it_is_there(service: FakeService, url: str) -> None:
    """Nothing waits for more."""
    service.script = hold(Accepted(1))
    async with sent(url, BODY | {"stream": True}) as stream:
        assert b"200 OK" in await until(stream, b"\r\n\r\n")
        service.answers[0].put(Chunk(0, "one", 1))
        assert b'"delta":{"content":"one"}' in await until(stream, b'"one"')
        service.answers[0].put(Chunk(0, "two", 1))
        await until(stream, b'"two"')
        service.answers[0].put(Finished(0, FinishReason.STOP, 2, 0))
        service.answers[0].end()
        await until(stream, b"data: [DONE]\n\n")
    await service.until_released()


async def test_chunks_that_wait_are_sent_as_one(service: FakeService, url: str) -> None:
    """Under load this keeps the daemon cheap."""
    service.script = hold(Accepted(1), Chunk(0, "a", 1), Chunk(0, "", 1), Chunk(0, "b", 1))
    async with sent(url, BODY | {"stream": True}) as stream:
        await until(stream, b'"content":"ab"')


async def test_a_client_that_leaves_a_stream_releases_it(service: FakeService, url: str) -> None:
    """At once, and it counts as 499."""
    service.script = hold(Accepted(1), Chunk(0, "one", 1))
    async with sent(url, BODY | {"stream": True}) as stream:
        await until(stream, b'"one"')
        assert not service.releases
    await service.until_released()
    await _counted(service, "499")


async def test_a_client_that_leaves_before_a_whole_answer_releases_it(service: FakeService, url: str) -> None:
    """A plain handler would go on to the end, for nobody."""
    service.script = hold(Accepted(1), Chunk(0, "one", 1))
    async with sent(url, BODY):
        await service.submitted.wait()
    await service.until_released()
    await _counted(service, "499")


async def test_a_client_that_leaves_while_queued_releases_it(service: FakeService, url: str) -> None:
    """Before the request was accepted."""
    service.script = hold()
    async with sent(url, BODY | {"stream": True}):
        await service.submitted.wait()
    await service.until_released()


async def test_a_client_that_leaves_while_waiting_releases_it(service: FakeService, url: str) -> None:
    """After the stream began, before the request was accepted."""
    service.settings(accept_s=0)
    service.script = hold()
    async with sent(url, BODY | {"stream": True}) as stream:
        await until(stream, b": waiting\n\n")
    await service.until_released()


async def test_a_client_that_leaves_within_its_body_is_no_error(service: FakeService, url: str) -> None:
    """Nothing was submitted."""
    async with sent(url, BODY, "x-padding: y") as stream:
        await stream.send(f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n{{".encode())
        await until(stream, b'"usage"')
    await _counted(service, "499")


async def test_a_long_wait_is_kept_alive(service: FakeService, url: str) -> None:
    """Comments, which no client takes for data; then the answer as ever."""
    service.settings(accept_s=0, keepalive_s=0.01)
    service.script = hold()
    async with sent(url, BODY | {"stream": True}) as stream:
        assert b"200 OK" in await until(stream, b": waiting\n\n")
        await until(stream, b": keep-alive\n\n")
        service.answers[0].put(Accepted(1))
        service.answers[0].put(Chunk(0, "one", 1))
        await until(stream, b'"one"')
    await service.until_released()


async def test_a_wait_for_the_policy_says_what_it_is_for_now(service: FakeService, url: str) -> None:
    """Not what it was for when it began."""
    service.settings(keepalive_s=0.01)
    service.readings.now = Reading(supply=Supply.BATTERY, percent=80.0)
    async with sent(url, BODY | {"stream": True}, "x-request-class: background") as stream:
        await until(stream, b"on battery at 80 %")
        service.readings.now = Reading(supply=Supply.BATTERY, percent=60.0)
        service.gate.follow(Policy(rules_of("balanced", ())))
        await until(stream, b"on battery at 60 %")
        service.gate.override(60)
        await until(stream, b"[DONE]")
    await service.until_released()


async def test_a_refusal_after_the_wait_is_an_event(service: FakeService, url: str) -> None:
    """The status is sent already; no [DONE] pretends that all went well."""
    service.settings(accept_s=0)
    service.script = hold()
    async with sent(url, BODY | {"stream": True}) as stream:
        await until(stream, b": waiting\n\n")
        service.answers[0].end(Busy("full", retry_after_s=1))
        rest = await until(stream, b"0\r\n\r\n")
    assert json.dumps(Busy("full").body(), separators=(",", ":")).encode() in rest
    assert b"[DONE]" not in rest


async def test_a_worker_that_dies_in_a_stream_is_an_event(service: FakeService, url: str) -> None:
    """The text so far, the error, the end."""
    service.script = fail(WorkerFailed("it died"), after=[Accepted(1), Chunk(0, "one", 1)])
    async with httpx.AsyncClient() as client:
        text = (await client.post(url + PATH, json=BODY | {"stream": True})).text
    *_, chunk, error, end = text.split("\n\n")
    assert '"one"' in chunk
    assert json.loads(error.removeprefix("data: ")) == WorkerFailed("it died").body()
    assert end == ""
    await _counted(service, "500")


async def test_a_bug_in_a_stream_is_logged_without_its_message(
    service: FakeService, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also by the HTTP server, which closes the connection."""

    class Broken(Chunk):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("a " + "secret")

    service.script = hold(Accepted(1), Chunk(0, "one", 1))
    async with sent(url, BODY | {"stream": True}) as stream:
        await until(stream, b'"one"')
        with capture_logs() as logs:
            service.answers[0].put(Broken(0, "two", 1))
            with pytest.raises(anyio.EndOfStream):
                await until(stream, b"[DONE]")
    assert "test_stream.py" in str(logs)
    assert "Exception in ASGI application" in caplog.text
    assert "a secret" not in str(logs) + caplog.text


async def test_no_watcher_task_outlives_a_stream(url: str) -> None:
    """sse-starlette would leave one polling twice a second; the daemon idles at zero wake-ups."""
    async with httpx.AsyncClient() as client:
        await client.post(url + PATH, json=BODY | {"stream": True})
    assert not sse._get_shutdown_state().watcher_started


async def test_a_connection_serves_many_requests(service: FakeService, url: str) -> None:
    """Streams and whole answers, one after the other."""
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
        for stream in (True, False, True, False):
            assert (await client.post(url + PATH, json=BODY | {"stream": stream})).status_code == 200
    assert len(service.releases) == 4


@pytest.mark.parametrize("length", ["content-length: 104857600", "content-length: 99999999999999999999999"])
async def test_a_body_that_says_it_is_too_long_is_refused_at_once(url: str, length: str) -> None:
    """Before any of it is read."""
    async with await anyio.connect_tcp("127.0.0.1", httpx.URL(url).port or 0) as stream:
        await stream.send(f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\n{length}\r\n\r\n".encode())
        received = await stream.receive()
    assert received.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


async def test_a_chunked_body_is_counted(service: FakeService, url: str) -> None:
    """100 MB are not kept: the answer comes after the first megabyte."""
    service.settings(body_limit=2**20)
    piece = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    async with await anyio.connect_tcp("127.0.0.1", httpx.URL(url).port or 0) as stream:
        await stream.send(
            f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(17):
            await stream.send(piece)
        received = await stream.receive()
    assert received.startswith(b"HTTP/1.1 413")
    assert b'"code":"request_too_large"' in received


async def _counted(service: FakeService, status: str) -> None:
    """The request ends a moment after its release."""
    while f'status="{status}"}} 1.0' not in service.metrics.text().decode():
        await anyio.lowlevel.checkpoint()
