"""uvicorn without its clock: the server waits for an event instead of waking ten times a second.

Signals are the daemon's. The Date header, which uvicorn refreshes from that clock, is written per response.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from email.utils import formatdate

import anyio
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pilotlight.api.connection import KEEP_ALIVE_S, Connection
from pilotlight.api.sse import DIRECT
from pilotlight.config import Config


class Server(uvicorn.Server):
    """Serves until `stop()`; streams in flight then get `server.drain_s` seconds to finish."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        super().__init__(
            uvicorn.Config(
                Dated(app),
                loop="none",
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                # Later than the daemon, which ends what is left with an error event.
                timeout_graceful_shutdown=math.ceil(config.server.drain_s) + 2,
            )
        )
        self._stopped = anyio.Event()

    def stop(self) -> None:
        """Take no new connections, let what runs finish, and return from `serve`."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises a captured SIGTERM again after serving, and nothing after it would run.
        yield


class Dated:
    """Adds the Date header that RFC 9110 asks of an origin server with a clock. The outermost layer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._second = 0
        self._header = (b"date", b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._now()]
            await send(message)

        scope[DIRECT] = send
        await self._app(scope, receive, dated)

    def _now(self) -> tuple[bytes, bytes]:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._header = (b"date", formatdate(second, usegmt=True).encode())
        return self._header
