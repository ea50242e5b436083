"""Requests as bytes on real sockets: offers of other protocols, and what comes too long or too slowly."""

import asyncio
import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketAttribute
from fake_service import FakeService, hold

from pilotlight.api import connection
from pilotlight.core import Accepted, Chunk
from pilotlight.errors import Busy

PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAMED = BODY[:-1] + b', "stream": true}'
OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAA\r\n"
"""What the JDK's client, Ktor and `curl --http2` send with the first request of a connection."""
CHUNKED = b"transfer-encoding: chunked\r\n"
READY = b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n"


def post(body: bytes, headers: bytes = b"", length: int | None = None) -> bytes:
    """A request; its body is the beginning of one of `length` bytes."""
    size = b"" if CHUNKED in headers else b"content-length: %d\r\n" % (length or len(body))
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b%b\r\n%b" % (PATH.encode(), size, headers, body)


@asynccontextmanager
async def connected(url: str, *segments: bytes) -> AsyncIterator[ByteStream]:
    """A connection on which the first segment was sent, and each other one once the server has read all
    before it."""
    async with await anyio.connect_tcp("127.0.0.1", httpx.URL(url).port or 0) as stream:
        for segment in segments:
            await stream.send(segment)
            await anyio.wait_all_tasks_blocked()
        yield stream


async def answers(stream: ByteStream, num: int) -> list[httpx.Response]:
    """The next ones, in the order in which they come."""
    received = b""
    found: list[httpx.Response] = []
    while len(found) < num:
        received += await stream.receive()
        while (answer := first(received)) is not None:
            found.append(answer[0])
            received = answer[1]
    return found


def first(received: bytes) -> tuple[httpx.Response, bytes] | None:
    """The first answer, if all of it is there, and what follows it."""
    head, end, rest = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    length = int(headers.get("content-length", 0))
    if not end or len(rest) < length:
        return None
    return httpx.Response(int(lines[0].split()[1]), headers=headers, content=rest[:length]), rest[length:]


async def rest_of(stream: ByteStream) -> bytes:
    """Everything until the server closes."""
    received = b""
    try:
        while True:
            received += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return received


async def refusal(stream: ByteStream) -> httpx.Response:
    """The error with which the server closes, checked for its shape."""
    found = first(await rest_of(stream))
    assert found is not None
    answer, rest = found
    assert rest == b""
    assert answer.headers["connection"] == "close"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code", "source"}
    return answer


# --- offers ---


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "chunked"])
async def test_a_body_comes_with_an_offer_of_another_protocol(
    service: FakeService, url: str, is_chunked: bool
) -> None:
    """The offer is ignored, and the request answered; so is the next one on that connection."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if is_chunked else BODY
    request = post(body, OFFER + (CHUNKED if is_chunked else b""))
    async with connected(url, request) as stream:
        assert [answer.status_code for answer in await answers(stream, 1)] == [200]
        await stream.send(READY)
        assert [answer.status_code for answer in await answers(stream, 1)] == [200]
    assert len(service.requests) == 1


@pytest.mark.parametrize("at", [10, len(post(BODY, OFFER)) - len(BODY), len(post(BODY, OFFER)) - 5])
async def test_a_request_with_an_offer_comes_in_two_segments(service: FakeService, url: str, at: int) -> None:
    """Parted in its head, between head and body, or in its body."""
    request = post(BODY, OFFER)
    async with connected(url, request[:at], request[at:]) as stream:
        assert [answer.status_code for answer in await answers(stream, 1)] == [200]
    assert len(service.requests) == 1


async def test_requests_with_offers_come_all_at_once(service: FakeService, url: str) -> None:
    """With others between them, as one segment: each has its own body, and nothing of it is a request."""
    async with connected(url, (post(BODY, OFFER) + READY) * 2) as stream:
        found = await answers(stream, 4)
    assert [answer.status_code for answer in found] == [200] * 4
    assert ["choices" in answer.json() for answer in found] == [True, False, True, False]


async def test_the_last_request_of_a_connection_may_have_an_offer(url: str) -> None:
    """The connection is closed after it, as asked."""
    headers = b"connection: upgrade, close\r\nupgrade: h2c\r\n"
    async with connected(url, post(BODY, headers)) as stream:
        assert (await rest_of(stream)).startswith(b"HTTP/1.1 200 ")


async def test_a_web_socket_is_a_path_that_is_not_there(url: str) -> None:
    """A request without a body."""
    head = b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    async with connected(url, head) as stream:
        assert [answer.status_code for answer in await answers(stream, 1)] == [404]


@pytest.mark.parametrize("target", [b"localhost:80", b"/ready"])
async def test_no_tunnel_is_made(url: str, target: bytes) -> None:
    """What follows the request would go through it, so it is no request."""
    request = b"CONNECT %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % target
    async with connected(url, request + READY) as stream:
        received = await rest_of(stream)
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 "))
    assert received.count(b"HTTP/1.1 ") == 1


# --- too long ---


ENDLESS = {
    "a URL": (b"", b"GET /", b"a"),
    "a method and nothing": (b"", b"GET ", b" "),
    "one header": (b"", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ", b"a"),
    "headers": (b"", b"GET / HTTP/1.1\r\nhost: localhost\r\n", b"x: y\r\n"),
    "a chunk's extension": (post(b"", CHUNKED), b"1;", b"a"),
    "trailers": (post(b"2\r\n{}", CHUNKED), b"\r\n0\r\n", b"x: y\r\n"),
}
"""What was read before, how it begins, and how it goes on."""


@pytest.mark.parametrize(("before", "begun", "more"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_is_no_body_has_an_end(
    service: FakeService, url: str, before: bytes, begun: bytes, more: bytes
) -> None:
    """In many segments, it is refused at 64 KiB, and the connection closed."""
    endless = (begun + more * connection.LONGEST_HEAD)[: connection.LONGEST_HEAD]
    async with connected(url, before) as stream:
        for at in range(0, len(endless), 1000):
            await stream.send(endless[at : at + 1000])
        answer = await refusal(stream)
    assert answer.status_code == 431
    assert str(connection.LONGEST_HEAD) in answer.json()["error"]["message"]
    assert not service.requests


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 431)])
async def test_a_whole_head_is_measured_too(url: str, excess: int, status: int) -> None:
    """Though it comes at once."""
    head = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: %b\r\n\r\n"
    padding = b"a" * (connection.LONGEST_HEAD - len(head % b"") + excess)
    async with connected(url, head % padding) as stream:
        assert (await rest_of(stream)).startswith(b"HTTP/1.1 %d " % status)


async def test_a_long_body_is_no_head(service: FakeService, url: str) -> None:
    """Nor does it count for the next one, whether chunks or one piece."""
    padding = b" " * 3 * connection.LONGEST_HEAD
    chunks = (
        (b"%x\r\n" % len(padding) + padding + b"\r\n") * 2 + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
    )
    async with connected(
        url, post(padding + BODY), post(chunks, CHUNKED), post(padding + BODY, OFFER)
    ) as stream:
        assert [answer.status_code for answer in await answers(stream, 3)] == [200] * 3
    assert len(service.requests) == 3


@pytest.mark.parametrize("before", [b"", READY], ids=["next", "behind one that waits"])
async def test_an_answer_is_not_mixed_with_a_refusal(service: FakeService, url: str, before: bytes) -> None:
    """What comes while an answer is under way is no HTTP: the connection ends, without another word."""
    service.script = hold(Accepted(1), Chunk(0, "one", 1))
    async with connected(url, post(STREAMED)) as stream:
        received = await until(stream, b'"one"')
        await stream.send(before + b"\x00")
        received += await rest_of(stream)
    assert received.count(b"HTTP/1.1 ") == 1
    await service.until_released()


# --- one behind another ---


@pytest.mark.parametrize("body", [BODY, STREAMED], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "waiting", [READY, post(BODY), post(BODY[:5], length=len(BODY))], ids=["no body", "whole", "in part"]
)
async def test_an_answer_ends_when_its_client_leaves_though_another_request_waits(
    service: FakeService, url: str, body: bytes, waiting: bytes
) -> None:
    """Which came later, and is never begun."""
    service.script = hold(Accepted(1))
    async with connected(url, post(body), waiting):
        await service.submitted.wait()
    await service.until_released()
    assert len(service.requests) == 1


async def test_an_answer_ends_when_its_client_leaves_though_another_request_came_with_it(
    service: FakeService, url: str
) -> None:
    """All at once."""
    service.script = hold(Accepted(1))
    async with connected(url, post(BODY) + READY):
        await service.submitted.wait()
    await service.until_released()


async def test_what_comes_behind_two_that_wait_is_not_read(service: FakeService, url: str) -> None:
    """Until the one before them is answered: no HTTP would end it."""
    service.script = hold(Accepted(1))
    async with connected(url, post(BODY), READY, READY, b"\x00") as stream:
        service.answers[0].end(Busy("full"))
        found = await answers(stream, 1)
    assert found[0].status_code == Busy.status


# --- too slowly ---


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\nhost: local", post(BODY[:5], length=len(BODY))])
@pytest.mark.parametrize("before", [b"", READY], ids=["first", "later"])
async def test_a_request_that_stops_is_given_up(
    url: str, monkeypatch: pytest.MonkeyPatch, part: bytes, before: bytes
) -> None:
    """In its head or in its body, as the first one of its connection or later."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.05)
    async with connected(url) as stream:
        if before:
            await stream.send(before)
            await answers(stream, 1)
        await stream.send(part)
        answer = await refusal(stream)
    assert answer.status_code == 408


async def test_who_says_nothing_is_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, which might be taken for an answer to what is asked in that moment."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.01)
    async with connected(url) as stream:
        assert await rest_of(stream) == b""


async def test_a_head_that_trickles_in_gets_no_more_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then holds no connection."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.05)
    async with connected(url, b"GET / HTTP/1.1\r\n") as stream, anyio.create_task_group() as tasks:

        async def trickle() -> None:
            while True:
                await stream.send(b"x")
                await anyio.sleep(0.005)

        tasks.start_soon(trickle)
        assert (await rest_of(stream)).startswith(b"HTTP/1.1 408 ")
        tasks.cancel_scope.cancel()


async def test_whoever_waits_for_an_answer_may_take_any_time(
    service: FakeService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a part of the next request already sent; that is answered after it."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.001)
    service.script = hold(Accepted(1))
    async with connected(url, post(STREAMED), READY[:10]) as stream:
        for text in ("one", "two", "three"):
            service.answers[0].put(Chunk(0, text, 1))
            await until(stream, text.encode())
        monkeypatch.setattr(connection, "PATIENCE_S", 60)
        await stream.send(READY[10:])
        service.answers[0].end()
        await until(stream, b"HTTP/1.1 200 OK")


async def test_a_whole_request_needs_no_timer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in which it had to come is gone; one that came in two segments leaves none behind, either."""
    timers = noted_timers(monkeypatch, connection.PATIENCE_S)
    async with connected(url, post(BODY) + READY) as stream:
        await answers(stream, 2)
        await stream.send(READY)
        await answers(stream, 1)
        assert [timer.cancelled() for timer in timers] == [True]
        await stream.send(READY[:10])
        await so(lambda: len(timers) == 2)
        await stream.send(READY[10:])
        await answers(stream, 1)
        assert [timer.cancelled() for timer in timers] == [True, True]


async def test_a_body_that_comes_after_its_answer_keeps_no_connection(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients send it by itself, and a refusal does not wait for it: the time to idle begins anew."""
    timers = noted_timers(monkeypatch, connection.KEEP_ALIVE_S)
    head = b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n"
    async with connected(url, head) as stream:
        assert [answer.status_code for answer in await answers(stream, 1)] == [404]
        await stream.send(b"{")
        await so(lambda: timers[0].cancelled())
        assert len(timers) == 1
        await stream.send(b"}")
        await so(lambda: len(timers) == 2)
        assert not timers[1].cancelled()
        await stream.send(READY)
        assert [answer.status_code for answer in await answers(stream, 1)] == [200]
        assert timers[1].cancelled()


async def test_a_connection_that_idles_is_ended_by_its_client(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's is httpx: were we the first, a request could cross our end. No timer is left, nor by one
    that ends with a reset."""
    assert 2 * (httpx.Limits().keepalive_expiry or math.inf) < connection.KEEP_ALIVE_S
    timers = noted_timers(monkeypatch, connection.KEEP_ALIVE_S)
    async with connected(url, READY) as stream:
        await answers(stream, 1)
        assert [timer.cancelled() for timer in timers] == [False]
        end_with_a_reset(stream)
    await so(lambda: timers[0].cancelled())


# --- too many ---


async def test_who_has_idled_longest_makes_room(
    service: FakeService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not who waits for an answer, or has said nothing yet."""
    monkeypatch.setattr(connection, "most_connections", lambda: 4)
    monkeypatch.setattr(connection, "YIELDS_AFTER_S", 0)
    service.script = hold(Accepted(1), Chunk(0, "one", 1))
    async with connected(url, post(STREAMED)) as busy, connected(url) as silent, connected(url) as longest:
        await until(busy, b'"one"')
        await longest.send(READY)
        await answers(longest, 1)
        async with connected(url, READY) as idle, connected(url, READY) as late:
            for stream in (idle, late):
                assert [answer.status_code for answer in await answers(stream, 1)] == [200]
            assert await rest_of(longest) == b""
            for stream in (idle, silent):
                await stream.send(READY)
                assert [answer.status_code for answer in await answers(stream, 1)] == [200]
        service.answers[0].end()
        await until(busy, b"[DONE]")


async def test_where_nobody_has_idled_for_long_there_is_no_room(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has just asked may do so again."""
    monkeypatch.setattr(connection, "most_connections", lambda: 1)
    async with connected(url, READY) as first_one, connected(url) as late:
        await answers(first_one, 1)
        assert await rest_of(late) == b""
        await first_one.send(READY)
        assert [answer.status_code for answer in await answers(first_one, 1)] == [200]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks at Linux's timers")
async def test_who_vanishes_while_it_waits_is_found_out(service: FakeService, url: str) -> None:
    """By the system, which asks the client's: neither side has a word to say."""
    service.script = hold(Accepted(1))
    async with connected(url, post(BODY)):
        await service.submitted.wait()
        assert httpx.URL(url).port in probed_ports()


# --- to clients of other times ---


async def test_a_stream_to_a_client_of_http_1_0_has_no_chunks(url: str) -> None:
    """It ends with its connection."""
    request = post(STREAMED).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with connected(url, request) as stream:
        head, _, body = (await rest_of(stream)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body.startswith(b"data: {")
    assert body.endswith(b"}\n\ndata: [DONE]\n\n")


async def test_an_answer_to_a_client_of_http_1_0_has_its_length(url: str) -> None:
    """It is closed after it, too."""
    async with connected(url, post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0")) as stream:
        found = first(await rest_of(stream))
    assert found is not None
    answer, rest = found
    assert (answer.status_code, answer.headers["connection"], rest) == (200, "close", b"")
    assert answer.json()["choices"]


@pytest.mark.parametrize("asks", [b"", b"connection: close\r\n"], ids=["kept", "closed"])
async def test_a_stream_says_once_whether_its_connection_stays(url: str, asks: bytes) -> None:
    """What it says is so; where nothing is said it stays."""
    async with connected(url, post(STREAMED, asks)) as stream:
        head, _, _ = (await until(stream, b"0\r\n\r\n")).partition(b"\r\n\r\n")
    assert [line for line in head.split(b"\r\n") if line.startswith(b"connection")] == asks.splitlines()


def end_with_a_reset(stream: ByteStream) -> None:
    """When it is closed, as a client that crashes does."""
    sock = stream.extra(SocketAttribute.raw_socket)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def probed_ports() -> list[int]:
    """Ours, of connections with a timer for that (02, says the kernel's `proc_net_tcp.rst`)."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [int(line[1].partition(":")[2], 16) for line in lines if line[5].startswith("02:")]


def noted_timers(monkeypatch: pytest.MonkeyPatch, delay_s: float) -> list[asyncio.TimerHandle]:
    """Those of so long that are set from now on."""
    loop = asyncio.get_running_loop()
    call_later, timers = loop.call_later, list[asyncio.TimerHandle]()

    def noted(delay: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timer = call_later(delay, *args, **kwargs)
        if delay == delay_s:
            timers.append(timer)
        return timer

    monkeypatch.setattr(loop, "call_later", noted)
    return timers


async def until(stream: ByteStream, text: bytes) -> bytes:
    received = b""
    while text not in received:
        received += await stream.receive()
    return received


async def so(condition: Callable[[], bool]) -> None:
    """Once it is."""
    with anyio.fail_after(5):
        while not condition():
            await anyio.wait_all_tasks_blocked()
