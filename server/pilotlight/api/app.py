"""`create_app`: the routes and what stands in front of them. Knows the paths; holds no state."""

from collections.abc import Awaitable, Callable
from functools import cache

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Match

from pilotlight import __version__
from pilotlight.api import admin, chat, completions, energy, health, models, policy, pulls, residency
from pilotlight.api.document import Later, Route, describe
from pilotlight.api.edge import Edge, Exchange, error_response
from pilotlight.api.framework import FastAPI
from pilotlight.api.service import Service
from pilotlight.errors import BadRequest, Error, MethodNotAllowed, NotFound

FILES, BATCHES, FIT = "pilotlight.api.files", "pilotlight.api.batches", "pilotlight.api.fit"

ROUTES = (
    Route("/v1/chat/completions", chat.chat, chat.ChatBody),
    Route("/v1/completions", completions.complete, completions.CompletionBody),
    Route("/v1/models", models.models),
    Route("/v1/models/{id:path}", models.model),
    Route("/v1/files", Later(FILES, "upload"), is_action=True),
    Route("/v1/files", Later(FILES, "files")),
    Route("/v1/files/{id}", Later(FILES, "file")),
    Route("/v1/files/{id}", Later(FILES, "delete"), is_deletion=True),
    Route("/v1/files/{id}/content", Later(FILES, "content")),
    Route("/v1/batches", Later(BATCHES, "create"), Later(BATCHES, "BatchBody")),
    Route("/v1/batches", Later(BATCHES, "batches")),
    Route("/v1/batches/{id}", Later(BATCHES, "batch")),
    Route("/v1/batches/{id}", Later(BATCHES, "delete"), is_deletion=True),
    Route("/v1/batches/{id}/cancel", Later(BATCHES, "cancel"), is_action=True),
    Route("/admin/models", admin.models),
    Route("/admin/models/{id:path}", admin.show),
    Route("/admin/reload", admin.reload, is_action=True),
    Route("/admin/models/pull", pulls.pull, pulls.ModelBody),
    Route("/admin/models/rollback", pulls.rollback, pulls.ModelBody),
    Route("/admin/models/rm", pulls.remove, pulls.ModelBody),
    Route("/admin/models/prune", pulls.prune, pulls.PruneBody),
    Route("/admin/models/load", residency.load, residency.LoadBody),
    Route("/admin/models/unload", residency.unload, residency.UnloadBody),
    Route("/admin/models/fit", Later(FIT, "fit"), Later(FIT, "FitBody")),
    Route("/admin/policy", policy.policy),
    Route("/admin/policy/override", policy.override, policy.OverrideBody),
    Route("/admin/energy", energy.energy),
    Route("/health", health.health),
    Route("/ready", health.ready),
    Route("/metrics", health.metrics),
)


def create_app(service: Service) -> FastAPI:
    """The ASGI application over `service`."""
    app = FastAPI(
        title="Pilotlight",
        version=__version__,
        docs_url=None,  # these pages would load their scripts from a CDN
        redoc_url=None,
        exception_handlers={HTTPException: _refused_by_router},
        telemetry={"tracing": False, "metrics": False, "logs": False},
        redirect_slashes=False,
    )
    # Plain routes: bodies are parsed by `body`, so FastAPI's own layers would only cost time.
    for route in ROUTES:
        app.add_route(route.path, _bound(route, service), route.methods)
    # Made once: it takes long, and anybody may ask for it. The documented way to replace it.
    app.openapi = cache(lambda: describe(ROUTES))  # type: ignore[method-assign]
    app.add_middleware(Edge, service=service)
    return app


def _bound(route: Route, service: Service) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def handle(http: HttpRequest) -> Response:
        Exchange.of(http.scope).endpoint = route.path
        service.keys.check(route.path, http.scope["headers"])
        return await route.loaded_endpoint()(http, service)

    return handle


def _methods(http: HttpRequest) -> set[str]:
    """Of all routes of this path; the router tells those of the first."""
    routes = (route for route in http.app.routes if route.matches(http.scope)[0] is not Match.NONE)
    return {method for route in routes for method in route.methods}


async def _refused_by_router(http: HttpRequest, exc: Exception) -> Response:
    """What no route takes, in our shape."""
    assert isinstance(exc, HTTPException)
    method, path, headers = http.method[:20], http.url.path[:200], dict(exc.headers or {})
    error: Error
    if exc.status_code == 404:
        where = "/openapi.json names all that is" if path.startswith("/v1/") else "OpenAI's API is under /v1"
        error = NotFound(f"there is no {path!r}; {where}")
    elif exc.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(http)))
        error = MethodNotAllowed(f"{method} is not for {path!r}, which takes {headers['Allow']}")
    else:
        error = BadRequest(str(exc.detail))
    return error_response(error, headers)
