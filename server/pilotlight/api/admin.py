"""/admin: what is for the person at the machine. Wakes nothing."""

from anyio import to_thread
from msgspec import to_builtins
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api.edge import json_response
from pilotlight.api.models import status_of
from pilotlight.api.service import Service
from pilotlight.registry.description import full, listing


async def reload(_http: HttpRequest, service: Service) -> Response:
    """Read models.toml again: which models were added, changed and removed; what waits for a restart."""
    return json_response(await service.reload())


async def models(_http: HttpRequest, service: Service) -> Response:
    """All models with everything known of them, what was found and is not used, what is still to be
    pulled, and the memory for them."""
    await service.catalog.refresh()
    versions = await to_thread.run_sync(service.shelf.versions)
    found = listing(service.status(), service.catalog.skipped, service.catalog.unpulled, versions)
    return json_response(found | {"memory": to_builtins(service.memory())})


async def show(http: HttpRequest, service: Service) -> Response:
    """Everything known about a model: its files, its versions, its settings, its worker."""
    status = await status_of(http.path_params["id"], service)
    return json_response(full(status, await to_thread.run_sync(service.shelf.versions)))
