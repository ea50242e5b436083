"""/openapi.json: the paths and the bodies they take, for tools that generate clients."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any, Generic, TypeVar

from msgspec import Struct
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight import __version__
from pilotlight.api.keys import ADMIN
from pilotlight.api.service import Service

Endpoint = Callable[[HttpRequest, Service], Awaitable[Response]]
T = TypeVar("T")


class Later(Struct, Generic[T], frozen=True):
    """Something of a module that most daemons never need: imported when it is first asked for."""

    module: str
    name: str

    def load(self) -> T:
        found: T = getattr(import_module(self.module), self.name)
        return found


class Route(Struct, frozen=True):
    """A path, what answers it, and the body it takes if it takes one."""

    path: str
    endpoint: Endpoint | Later[Endpoint]
    body: type[BaseModel] | Later[type[BaseModel]] | None = None
    is_action: bool = False
    """It does something, though it takes no JSON body."""
    is_deletion: bool = False

    @property
    def methods(self) -> list[str]:
        if self.is_deletion:
            return ["DELETE"]
        return ["POST"] if self.is_action or self.body is not None else ["GET", "HEAD"]

    def loaded_endpoint(self) -> Endpoint:
        return self.endpoint.load() if isinstance(self.endpoint, Later) else self.endpoint

    def loaded_body(self) -> type[BaseModel] | None:
        return self.body.load() if isinstance(self.body, Later) else self.body


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    bodies = [body for route in routes if (body := route.loaded_body()) is not None]
    _, schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(route.path.replace(":path", ""), {})
        operations[route.methods[0].lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pilotlight", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": inspect.getdoc(route.loaded_endpoint()),
        "responses": {"200": {"description": "OK"}, "4XX": {"description": "An error in OpenAI's shape"}},
    }
    if "{id" in route.path:
        operation["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if route.path.startswith(ADMIN):
        operation["security"] = [{"key": []}]
    if (body := route.loaded_body()) is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation
