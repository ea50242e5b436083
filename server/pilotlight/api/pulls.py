"""POST /admin/models/pull, rollback, prune and rm: what is in the store, and which version is active."""

from collections.abc import AsyncIterator
from typing import Annotated

from anyio import to_thread
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api import sse
from pilotlight.api.body import Dialect, read
from pilotlight.api.edge import json_response
from pilotlight.api.service import Service
from pilotlight.store.events import Job, encode

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class ModelBody(BaseModel):
    """Which model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class PruneBody(BaseModel):
    """Whether to delete, or only to say what would be deleted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dry_run: bool = False


_MODEL = Dialect(ModelBody, {})
_PRUNE = Dialect(PruneBody, {})


async def pull(http: HttpRequest, service: Service) -> Response:
    """Download, test and activate a model; answers with events, the last one `done` or `failed`."""
    body, _ = await read(http, _MODEL, service.config.server)
    job = await to_thread.run_sync(service.shelf.job, body.model)
    return sse.EventStream(_events(service, job), HEADERS, service.config.server.keepalive_s)


async def rollback(http: HttpRequest, service: Service) -> Response:
    """Serve a model's previous version again."""
    body, _ = await read(http, _MODEL, service.config.server)
    done = await to_thread.run_sync(service.shelf.rollback, body.model)
    await service.refresh()
    return json_response(done)


async def remove(http: HttpRequest, service: Service) -> Response:
    """Delete a pulled model with all its versions."""
    body, _ = await read(http, _MODEL, service.config.server)
    try:
        done = await to_thread.run_sync(service.shelf.remove, body.model)
    finally:
        await service.refresh()  # a folder that cannot be emptied is no model any more, either
    return json_response(done)


async def prune(http: HttpRequest, service: Service) -> Response:
    """Delete versions that are not active and downloads that nobody is at."""
    body, _ = await read(http, _PRUNE, service.config.server)
    return json_response(await to_thread.run_sync(service.shelf.prune, body.dry_run))


async def _events(service: Service, job: Job) -> AsyncIterator[bytes]:
    async with service.pulls.following(job) as events:
        async for event in events:
            yield sse.event(encode(event))
    yield sse.DONE
