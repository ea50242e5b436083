"""GET /v1/models and /v1/models/{id}: OpenAI's list, plus what each model is doing. Wakes nothing."""

from msgspec import to_builtins
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api.edge import json_response
from pilotlight.api.service import Service
from pilotlight.core import ModelStatus
from pilotlight.registry.description import brief


async def models(_http: HttpRequest, service: Service) -> Response:
    """All models, first those configured, then those found in stores; and the memory there is for them."""
    await service.catalog.refresh()
    models = [brief(status) for status in service.status()]
    return json_response({"object": "list", "data": models, "memory": to_builtins(service.memory())})


async def model(http: HttpRequest, service: Service) -> Response:
    """One model; its name may hold slashes."""
    return json_response(brief(await status_of(http.path_params["id"], service)))


async def status_of(name: str, service: Service) -> ModelStatus:
    """What the model of that name or alias is doing. Raises `ModelNotFound`."""
    known = await service.catalog.find(name)
    return next(status for status in service.status() if status.model.name == known.name)
