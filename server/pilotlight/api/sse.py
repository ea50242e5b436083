"""Server-sent events over sse-starlette, without what an idle daemon must not have.

Knows bytes and connections, not what the events say.
"""

from collections.abc import AsyncIterator, Callable, Mapping

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from pilotlight.jsonl import lined as lined  # also offered as `sse.lined`

DIRECT = "pilotlight.send"
"""Where the outermost layer leaves the server's own `send` in the scope."""

DONE = b"data: [DONE]\n\n"


def event(data: bytes) -> bytes:
    """One event. `data` is JSON."""
    return b"data: " + lined(data) + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients pass over."""
    return f": {text}\n\n".encode()


class EventStream(EventSourceResponse):
    """Streams ready-made events; a comment every `keepalive_s`, which `says` something, keeps proxies and
    impatient clients."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        headers: Mapping[str, str],
        keepalive_s: float,
        says: Callable[[], str] = lambda: "keep-alive",
    ) -> None:
        super().__init__(
            events,
            headers=headers,
            ping=keepalive_s,
            sep="\n",
            ping_message_factory=lambda: ServerSentEvent(comment=says(), sep="\n"),
        )
        del self.headers["connection"]  # the server's word, who may be about to close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._direct: Send = scope.get(DIRECT, send)
        await super().__call__(scope, receive, send)

    async def _stream_response(self, send: Send) -> None:
        """As the base class, less a cancel scope and a log call per event: 6 µs instead of 18.

        The layers around us look at how a response starts and hand on what follows; so that goes direct.
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        direct = self._direct
        async for data in self.body_iterator:
            await direct({"type": "http.response.body", "body": data, "more_body": True})
        async with self._send_lock:
            self.active = False
            await direct({"type": "http.response.body", "body": b"", "more_body": False})

    async def _listen_for_exit_signal_with_grace(self) -> None:
        """Never ends a stream: the daemon drains by itself.

        The base class would start a task that polls twice a second until the process ends.
        """
        await anyio.Event().wait()
