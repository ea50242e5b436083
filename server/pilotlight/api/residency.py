"""POST /admin/models/load and /unload: a model into memory before anybody asks, and out of it."""

from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api import body, models
from pilotlight.api.edge import Exchange, json_response, unless_gone
from pilotlight.api.schema import KeepAlive, Strict
from pilotlight.api.service import Service
from pilotlight.registry.description import brief


class UnloadBody(Strict):
    """Which model."""

    model: str = Field(min_length=1)


class LoadBody(UnloadBody):
    """Which model, and how long it stays after its last request."""

    keep_alive: KeepAlive | None = None


LOAD = body.Dialect(LoadBody, {})
UNLOAD = body.Dialect(UnloadBody, {})


async def load(http: HttpRequest, service: Service) -> Response:
    """Load a model, in its turn; answers once it is loaded, with what /v1/models says of it. Who leaves has
    it loaded only if it is by then."""
    asked, _ = await body.read(http, LOAD, service.config.server)
    name = Exchange.of(http.scope).model = (await service.catalog.find(asked.model)).name
    await unless_gone(http.receive, lambda: service.load(name, asked.keep_alive))
    return json_response(brief(await models.status_of(name, service)))


async def unload(http: HttpRequest, service: Service) -> Response:
    """Unload a model once it runs nothing; answers when its memory is free."""
    asked, _ = await body.read(http, UNLOAD, service.config.server)
    name = Exchange.of(http.scope).model = (await service.catalog.find(asked.model)).name
    await service.unload(name)
    return json_response(brief(await models.status_of(name, service)))
