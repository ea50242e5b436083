"""The life of one generating request: submit, wait for its acceptance, then one JSON body or a stream.

Everything happens inside `async with answer`, so whatever ends it releases the request, once. Knows no
dialect: its `Writer` makes the bytes.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

import anyio
import msgspec
from msgspec.structs import replace
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pilotlight.api import said, sse
from pilotlight.api.asking import Asking
from pilotlight.api.edge import CLIENT_GONE, Exchange, unless_gone
from pilotlight.api.guard import Headers
from pilotlight.api.tally import Tally, Usage
from pilotlight.api.writer import Choice
from pilotlight.core import Chunk, FinishReason
from pilotlight.errors import Error
from pilotlight.policy.actions import Admit
from pilotlight.policy.decide import Decision
from pilotlight.scheduler.answer import Answer, Item


class Reply(Response):
    """Answers as the policy decides. Errors before the first byte are raised; later ones are an event."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._service = asking.service
        warnings = asking.warnings
        self._comment: Callable[[], str] = lambda: "keep-alive"
        """What is said from time to time."""
        self._extra_headers = {"x-pilotlight-warnings": _header(warnings)} if warnings else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        decision = await self._decide(exchange)
        is_stream = bool(self._asking.asked.stream)
        if decision.actions.admit is Admit.DEFER:
            if is_stream:
                await self._events_of(self._held(decision, exchange))(scope, receive, send)
                return
            decision = await unless_gone(receive, lambda: self._service.gate.admitted(decision))
        with self._begin(decision, exchange.arrived) as (answer, tally):
            exchange.model = self._request.model
            if is_stream:
                await self._stream(answer, tally, scope, receive, send)
            else:
                content = await unless_gone(receive, lambda: self._collect(answer, tally))
                exchange.headers += _waited(answer, exchange.arrived)
                response = Response(content, 200, self._extra_headers, "application/json")
                await response(scope, receive, send)

    async def _decide(self, exchange: Exchange | None = None) -> Decision:
        """Raises the refusal; the exchange's headers say what was decided all the same."""
        decision = await self._service.gate.judge(self._asking.facts)
        if exchange is not None:
            exchange.headers += said.headers(decision)
        self._service.metrics.count_decision(decision.facts.request_class, said.kinds(decision))
        if decision.actions.admit is Admit.REJECT:
            raise self._service.gate.refusal(decision)
        return decision

    @contextmanager
    def _begin(self, decision: Decision, arrived: float) -> Iterator[tuple[Answer, Tally]]:
        self._request, self._writer = self._asking.decided(decision)
        meter = self._service.metrics.meter(self._request.model, self._request.request_class)
        tally = Tally(meter, self._request.n, arrived)
        answer = self._service.submit(self._request)
        self._comment = lambda: self._service.standing(self._request) or "keep-alive"
        try:
            yield answer, tally
        finally:
            answer.close()
            tally.report(answer.began_at)

    async def _held(self, decision: Decision, exchange: Exchange) -> AsyncIterator[bytes]:
        """What a stream says that has to wait, and then its answer."""
        ended, exchange.status = exchange.status, CLIENT_GONE
        yield sse.comment(said.comment(decision))
        try:
            decision = await self._service.gate.admitted(decision, self._say)
            with self._begin(decision, exchange.arrived) as (answer, tally):
                exchange.model, exchange.status = self._request.model, ended
                async for data in self._events(answer, tally, (), exchange):
                    yield data
        except Error as error:
            yield sse.event(msgspec.json.encode(error.body()))
            exchange.status = error.status

    def _say(self, decision: Decision) -> None:
        """From time to time, from now on."""
        self._comment = lambda: said.comment(decision)

    def _events_of(self, events: AsyncIterator[bytes]) -> sse.EventStream:
        keepalive_s = self._service.config.server.keepalive_s
        return sse.EventStream(events, self._extra_headers, keepalive_s, lambda: self._comment())

    async def whole(self) -> bytes:
        """The body of an answer that nobody waits for at a connection. Raises the `Error` that ended it."""
        decision = await self._decide()
        if decision.actions.admit is Admit.DEFER:
            decision = await self._service.gate.admitted(decision)
        with self._begin(decision, time.perf_counter()) as (answer, tally):
            return await self._collect(answer, tally)

    async def _collect(self, answer: Answer, tally: Tally) -> bytes:
        texts: list[list[str]] = [[] for _ in range(self._request.n)]
        reasons = [FinishReason.STOP] * self._request.n
        async for items in answer:
            for shown in tally.add(items):
                if isinstance(shown, Chunk):
                    texts[shown.index].append(shown.text)
                else:
                    reasons[shown.index] = shown.reason
        choices = [Choice("".join(text), reason) for text, reason in zip(texts, reasons, strict=True)]
        return self._writer.whole(choices, _usage(answer, tally))

    async def _stream(self, answer: Answer, tally: Tally, scope: Scope, receive: Receive, send: Send) -> None:
        server = self._service.config.server
        first: Sequence[Item] = ()
        with anyio.move_on_after(server.accept_s):
            first = await unless_gone(receive, answer.__anext__)
        exchange = Exchange.of(scope)
        exchange.headers += _waited(answer, exchange.arrived)
        await self._events_of(self._events(answer, tally, first, exchange))(scope, receive, send)

    async def _events(
        self, answer: Answer, tally: Tally, first: Sequence[Item], exchange: Exchange
    ) -> AsyncIterator[bytes]:
        """Events until the end, an error (an event, and no [DONE] after it), or the client's leaving."""
        ended, exchange.status = exchange.status, CLIENT_GONE
        if not first:
            yield sse.comment(self._service.standing(self._request) or "waiting")
        elif data := self._written(tally, first):
            yield data
        try:
            async for items in answer:
                if data := self._written(tally, items):
                    yield data
            yield self._writer.ending(_usage(answer, tally))
            exchange.status = ended
        except Error as error:
            yield sse.event(msgspec.json.encode(error.body()))
            exchange.status = error.status

    def _written(self, tally: Tally, items: Sequence[Item]) -> bytes:
        """The events for what came."""
        writer = self._writer
        return b"".join(
            writer.chunk(shown.index, shown.text)
            if isinstance(shown, Chunk)
            else writer.finish(shown.index, shown.reason)
            for shown in tally.add(items)
        )


def _usage(answer: Answer, tally: Tally) -> Usage:
    """Of an answer that has ended."""
    return replace(tally.usage, energy=answer.energy)


def _waited(answer: Answer, arrived: float) -> Headers:
    """X-Queue-Wait-Ms, once it is known how long the request waited before its worker had it."""
    if answer.began_at is None:
        return []
    return [(b"x-queue-wait-ms", b"%d" % (1000 * (answer.began_at - arrived)))]


def _header(warnings: Sequence[str]) -> str:
    """Names from the body, as one header value: printable ASCII, bounded."""
    text = "; ".join(f"unknown field {name}" for name in warnings)
    return "".join(c if " " <= c <= "~" else "?" for c in text[:500])
