"""The outermost layer: request id, guard, one count per request, and every failure in one shape.

Pure ASGI: it passes messages on and buffers nothing. Knows no routes.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import msgspec
import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from pilotlight.api.guard import Guard, Headers
from pilotlight.api.service import Service
from pilotlight.errors import Error, Internal, InvalidKey
from pilotlight.log import bug
from pilotlight.metrics import UNKNOWN

T = TypeVar("T")

log = structlog.get_logger()

CLIENT_GONE = 499
"""Nobody is left to read this status; logs and metrics use it (nginx's number)."""


class ClientGone(Exception):
    """The client left before its answer began."""


class Exchange:
    """One HTTP request and what became of it.

    `status` is its outcome so far; `endpoint` (a route's path) and `model` become known on the way.
    """

    def __init__(self, send: Send) -> None:
        self.id = secrets.token_hex(12)
        self.arrived = time.perf_counter()
        self.headers: Headers = [(b"x-request-id", self.id.encode())]
        self.endpoint = UNKNOWN
        self.model = UNKNOWN
        self.status = CLIENT_GONE
        self.is_started = False
        self._send = send

    @classmethod
    def of(cls, scope: Scope) -> "Exchange":
        exchange: Exchange = scope["pilotlight.exchange"]
        return exchange

    async def send(self, message: Message) -> None:
        """ASGI send that adds this exchange's headers and notes the status."""
        if message["type"] == "http.response.start":
            self.is_started = True
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.headers]
        await self._send(message)


class Edge:
    """ASGI middleware; the only place where an exception becomes a response."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._guard = Guard(service.config.server)
        self._metrics = service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope["pilotlight.exchange"] = Exchange(send)
        bind_contextvars(request_id=exchange.id)
        try:
            await self._answer(exchange, scope, receive)
        finally:
            self._record(exchange)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        try:
            exchange.headers += self._guard.admit(scope["headers"])
            preflight = self._guard.preflight(scope["headers"]) if scope["method"] == "OPTIONS" else None
            if preflight is not None:
                exchange.headers += preflight
                await Response(status_code=204)(scope, receive, exchange.send)
            else:
                await self._app(scope, receive, exchange.send)
        except ClientGone:
            exchange.status = CLIENT_GONE
            await Response(status_code=CLIENT_GONE)(scope, receive, exchange.send)
        except Error as error:
            await error_response(error)(scope, receive, exchange.send)
        except Exception as exc:
            log_bug(exc, exchange.endpoint)
            exchange.status = Internal.status
            failed = Internal(
                f"the server failed on this request; its log has the details under {exchange.id}"
            )
            if exchange.is_started:
                raise failed from None  # the HTTP server closes the connection, and logs it anew
            await error_response(failed)(scope, receive, exchange.send)

    def _record(self, exchange: Exchange) -> None:
        self._metrics.count_request(exchange.endpoint, exchange.model, exchange.status)
        log.debug(
            "request done",
            endpoint=exchange.endpoint,
            model=exchange.model,
            status=exchange.status,
            duration_ms=round((time.perf_counter() - exchange.arrived) * 1000, 1),
        )


async def unless_gone(receive: Receive, work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`; it is cancelled, and `ClientGone` raised, when the client leaves first."""
    with anyio.CancelScope() as scope:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                continue
            scope.cancel()

        # Not in a task group, whose end an answer would wait for, two turns of the event loop.
        watching = asyncio.ensure_future(watch())
        try:
            return await work()
        finally:
            watching.cancel()
    raise ClientGone


def log_bug(exc: BaseException, endpoint: str) -> None:
    log.error("request failed by a bug of ours", endpoint=endpoint, **bug(exc))


def error_response(error: Error, headers: dict[str, str] | None = None) -> Response:
    """The error in OpenAI's shape, with the headers that go with it."""
    headers = dict(headers or {})
    if error.status == InvalidKey.status:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    elif error.is_final:
        headers["x-should-retry"] = "false"  # OpenAI's clients would try twice more
    return json_response(error.body(), error.status, headers)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")
