"""The requests of batches: parsed, checked and run as those over HTTP are, with nobody at a connection.

The one place where a batch's request is told from others.
"""

from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace
from structlog.contextvars import bound_contextvars

from pilotlight.api import chat, completions, said
from pilotlight.api.asking import Asking, small_of
from pilotlight.api.body import parse
from pilotlight.api.chat import ChatBody
from pilotlight.api.completions import CompletionBody
from pilotlight.api.edge import log_bug
from pilotlight.api.reply import Reply
from pilotlight.api.service import Service
from pilotlight.api.writer import Shape
from pilotlight.core import RequestClass
from pilotlight.errors import Error, Internal, Unsupported
from pilotlight.policy.facts import Facts

UnknownFields = Literal["refuse", "warn"]
Parse = Callable[[bytes, UnknownFields], tuple[ChatBody | CompletionBody, tuple[str, ...]]]

ENDPOINTS: dict[str, tuple[Parse, Shape]] = {
    "/v1/chat/completions": (lambda raw, unknown: parse(raw, chat.DIALECT, unknown), chat.SHAPE),
    "/v1/completions": (lambda raw, unknown: parse(raw, completions.DIALECT, unknown), completions.SHAPE),
}
"""What batches may ask, and how it is read and answered."""

CLIENT = "batch"
"""Who asks: lines of batches are one among others of their class."""


class Offline:
    """`batch.run.Inference` of the daemon."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def find(self, model: str) -> str:
        return (await self._service.catalog.find(model)).name

    async def ask(self, endpoint: str, raw: bytes, request_id: str) -> bytes:
        # As at the edge: what is logged of a request has its id, and one bad request ends neither the daemon
        # nor, at every start anew, the next one.
        with bound_contextvars(request_id=request_id):
            try:
                reply = await self._reply(endpoint, raw, request_id)
                return await reply.whole()
            except Error:
                raise
            except Exception as exc:
                log_bug(exc, endpoint)
                raise Internal(
                    f"the server failed on this request; its log has the details ({request_id})"
                ) from exc

    def parallel(self, model: str) -> int:
        service = self._service
        known = [one for one in service.status() if model in (one.model.name, *one.model.aliases)]
        return max((one.info.parallel for one in known if one.info is not None), default=1)

    async def may_run(self) -> None:
        await self._service.gate.until_free(Facts(RequestClass.BATCH))

    async def _reply(self, endpoint: str, raw: bytes, request_id: str) -> Reply:
        parse_body, shape = ENDPOINTS[endpoint]
        asked, warnings = parse_body(raw, self._service.config.server.unknown_fields)
        if asked.stream:
            raise Unsupported("stream is not supported in batches", param="stream")
        model = await self._service.catalog.find(asked.model)
        request = replace(
            asked.request(request_id, model), request_class=RequestClass.BATCH, client=CLIENT, app=CLIENT
        )
        small = await small_of(model, self._service)
        facts = said.facts_of(request, model, small)
        answer_id = request_id.removeprefix("req_")
        return Reply(Asking(asked, shape, model, small, request, facts, self._service, answer_id, warnings))
