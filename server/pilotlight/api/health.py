"""GET /health, /ready and /metrics: for people, supervisors and Prometheus. None of them wakes a model."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight import __version__
from pilotlight.api.edge import json_response
from pilotlight.api.service import Service


async def health(http: HttpRequest, service: Service) -> Response:
    """Alive: 200 as long as anything answers. Who may ask for more also hears the notices that stand."""
    if not service.keys.is_known(http.scope["headers"]):
        return json_response({"status": "ok"})
    return json_response({"status": "ok", "version": __version__, "notices": list(service.notices)})


async def ready(_http: HttpRequest, service: Service) -> Response:
    """Able to serve: 503 while starting and stopping."""
    if service.is_ready:
        return json_response({"status": "ready"})
    return json_response({"status": "not ready"}, 503)


async def metrics(_http: HttpRequest, service: Service) -> Response:
    """Everything in Prometheus' text format."""
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
