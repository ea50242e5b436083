"""A client's connection: uvicorn's, with bounds on what it waits for, and deaf to offers of other protocols.

Uvicorn and its parser keep all of a head, however long it gets and takes; whatever is limited by the app is
limited later. Knows no app.
"""

import asyncio
import socket
import sys
from contextlib import suppress

import msgspec
import structlog
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from pilotlight.errors import BadRequest

log = structlog.get_logger()

LONGEST_HEAD = 64 * 1024
"""Bytes in a row that are no body: a request line with its headers, the size of a chunk, trailers."""
PATIENCE_S = 60.0
"""For all of a head, from its first byte (the first one's, from the connection's beginning), and for the next
piece of a body."""
KEEP_ALIVE_S = 75
"""For a connection that idles. Longer than clients keep theirs (httpx, and so OpenAI's, for 5 s): who asks in
the moment in which we close gets no answer."""
YIELDS_AFTER_S = 5.0
"""Who has idled for so long makes room for a new connection where there are too many."""
PROBE_S = 60
"""After so long without a word the system asks whether the client is still there."""
RESERVE = 128
"""Descriptors that are no connections: files, and the pipes of workers."""


class Connection(HttpToolsProtocol):
    """Has a timer only while the first request has not come or one is there in part: whole ones need none,
    and idling after them has uvicorn's."""

    _num_pending = 0
    """Bytes read since a head, a piece of a body or a request was complete."""
    _is_open = False
    """A head was read and the end of its body was not."""
    _deadline: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    """The request that was begun last. `cycle` is the one that came last, and may wait behind it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        super().connection_made(transport)
        _probe(transport)
        if len(self.connections) > (most := most_connections()) and not self._take_place():
            log.info("connection refused", reason=f"there are {most} already")
            transport.close()
        self._set_deadline()

    def _take_place(self) -> bool:
        """Of the one that has idled longest. False if none has for long."""
        longest = max(
            (one for one in self.connections if isinstance(one, Connection)), key=Connection._idle_s
        )
        if longest._idle_s() < YIELDS_AFTER_S:
            return False
        longest._unset_keepalive_if_required()
        longest.transport.close()
        return True

    def _idle_s(self) -> float:
        """How long it has idled; 0 where it does not, or where the client has not taken all of an answer."""
        timer = self.timeout_keep_alive_task
        if timer is None or self.transport.get_write_buffer_size():
            return 0.0
        return self.timeout_keep_alive - (timer.when() - self.loop.time())

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        unread = memoryview(data)
        while unread and not self.transport.is_closing():
            num_read = self._read(unread[: LONGEST_HEAD - self._num_pending])
            unread = unread[num_read:]
        self._set_deadline()
        self._set_keep_alive()

    def _read(self, data: memoryview) -> int:
        """At most what there is room for. Returns how much of it was read: after an offer it is not all."""
        self._num_pending += len(data)
        try:
            num_read = self._parse(data)
        except HttpParserError:
            self._refuse(400, "the request is not valid HTTP; this port speaks it without TLS")
            return len(data)
        if self._num_pending >= LONGEST_HEAD:
            self._refuse(431, f"the request line and headers have more than {LONGEST_HEAD} bytes")
        return num_read

    def _parse(self, data: memoryview) -> int:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if self._should_upgrade():
                self._decline()
                return int(offer.args[0])
        return len(data)

    def _should_upgrade(self) -> bool:
        """Has uvicorn not begin a request with an offer: the parser takes it to have no body."""
        return self.scope["method"] != "CONNECT"

    def _decline(self) -> None:
        """Read the same head without the offer, as HTTP allows: clients make one on any plain connection."""
        request = (self.scope["method"].encode(), self.url, self.scope["http_version"].encode())
        headers = [header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        lines = [b"%b %b HTTP/%b" % request, *(b"%b: %b" % header for header in headers), b"", b""]
        self.parser.feed_data(b"\r\n".join(lines))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._num_pending = 0
        self._is_open = True
        if len(self.pipeline) == 1:
            # The one that runs hears of its client's leaving only while we read. When two wait we don't, lest
            # any number does, nor (uvicorn) when more than 64 KiB of a body do.
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, unframed(app, cycle) if cycle.scope["http_version"] == "1.0" else app)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._num_pending = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._num_pending = 0
        self._is_open = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does so only where nothing went wrong
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells `cycle` only
            self._running.message_event.set()
        self._clear_deadline()

    def _set_deadline(self) -> None:
        """A piece of a body gets the next one more time; a piece of a head gets its rest none."""
        if not self._num_pending:
            self._clear_deadline()
        if self._is_awaited and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(PATIENCE_S, self._on_late)

    def _set_keep_alive(self) -> None:
        """As uvicorn after an answer: a body that was not waited for comes behind it, and gets none."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        if is_answered and not self._is_awaited and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_late(self) -> None:
        self._deadline = None
        if self.flow.read_paused or self._is_answering:
            self._set_deadline()  # it is the client who waits
        elif self.cycle is None and not self._num_pending:
            self.transport.close()  # without a word: browsers connect before they have anything to ask
        else:
            self._refuse(408, f"nothing more of the request came for {PATIENCE_S:g} s")

    @property
    def _is_awaited(self) -> bool:
        """The first request, or the rest of one."""
        return self.cycle is None or self._is_open or self._num_pending > 0

    @property
    def _is_answering(self) -> bool:
        """Whatever is said now would be taken for a part of an answer, or for that to another request."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return self.cycle.response_started or not self._is_open or bool(self.pipeline)

    def _refuse(self, status: int, why: str) -> None:
        """Close, and say why where that can be told from an answer."""
        log.info("connection refused", status=status, reason=why)
        if not self._is_answering:
            body = msgspec.json.encode(BadRequest(why).body())
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()


def most_connections() -> int:
    """As many as leave descriptors for all else; on Windows sockets are none."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(limit - RESERVE, limit // 2)


def unframed(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """The app for a client that knows no chunks: an answer without a length ends with its connection."""
    cycle.chunked_encoding = False

    async def unframed_app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def expected(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body":
                cycle.expected_content_length += len(message.get("body", b""))
            await send(message)

        await app(scope, receive, expected)

    return unframed_app


def _probe(transport: asyncio.Transport) -> None:
    """Have the system notice a client that vanishes while it waits, when neither side has a word to say."""
    sock = transport.get_extra_info("socket")
    with suppress(OSError):  # it has left already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_S)
