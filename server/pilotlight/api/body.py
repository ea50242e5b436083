"""A request body: bytes within the limit -> JSON -> one strict pydantic model.

Whatever is wrong with it is a `BadRequest` that names the field. Knows no endpoint: `Dialect` says which
model to read and which known fields are not done.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from pilotlight.api import problems
from pilotlight.api.edge import ClientGone
from pilotlight.api.fields import Refusal
from pilotlight.errors import BadRequest, BodyTooLarge, Unsupported
from pilotlight.settings import ServerSettings

Body = TypeVar("Body", bound=BaseModel)


class Dialect(Struct, Generic[Body], frozen=True):
    """The bodies of one endpoint: their model, and the known fields that are refused by name."""

    model: type[Body]
    refusals: Mapping[str, Refusal]


async def read(http: Request, dialect: Dialect[Body], server: ServerSettings) -> tuple[Body, tuple[str, ...]]:
    """The body, and the names of unknown fields left out of it (with `unknown_fields = "warn"`)."""
    _check_content_type(http)
    raw = await _read_bytes(http, server.body_limit)
    return parse(raw, dialect, server.unknown_fields)


def parse(
    raw: bytes, dialect: Dialect[Body], unknown_fields: Literal["refuse", "warn"]
) -> tuple[Body, tuple[str, ...]]:
    """See `read`."""
    fields = _without_refused(_decode(raw), dialect.refusals)
    try:
        return dialect.model.model_validate(fields), ()
    except ValidationError as exc:
        unknown = problems.unknown_locations(exc)
        if unknown_fields == "refuse" or not unknown:
            raise problems.describe(exc, dialect.model) from None
    for location in unknown:
        _remove(fields, location)
    try:
        return dialect.model.model_validate(fields), tuple(problems.path(location) for location in unknown)
    except ValidationError as exc:
        raise problems.describe(exc, dialect.model) from None


def _check_content_type(http: Request) -> None:
    """A page may send text/plain or a form without asking (no preflight); JSON it may not."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "origin" in http.headers and kind != "application/json":
        raise BadRequest(f"content-type must be application/json, not {kind[:60]!r}")


async def _read_bytes(http: Request, limit: int) -> bytes:
    length = http.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise BodyTooLarge(f"the body has {length} bytes; server.body_limit is {limit}")
    body = bytearray()
    more = True
    while more:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise BodyTooLarge(f"the body has more than {limit} bytes, which is server.body_limit")
    return bytes(body)


def _decode(raw: bytes) -> dict[str, Any]:
    if not raw:
        raise BadRequest("the body is empty; send a JSON object")
    try:
        # jiter refuses NaN, invalid UTF-8, lone surrogates and nesting beyond 200.
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as exc:
        raise BadRequest(f"the body is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be a JSON object, not {problems.kind(value)}")
    if b"\\u0000" in raw and (location := next(_nul_locations(value, ()), None)) is not None:
        # Native code may take NUL for the end of the text and drop the rest in silence.
        name = problems.path(location)
        raise BadRequest(f"{name or 'a field name'} contains the character U+0000", param=name or None)
    return value


def _nul_locations(value: Any, location: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str) and "\0" in value:
        yield location
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from [location] if "\0" in key else _nul_locations(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nul_locations(item, (*location, index))


def _without_refused(fields: dict[str, Any], refusals: Mapping[str, Refusal]) -> dict[str, Any]:
    """The fields that are done. One that asks for something this server does not do is `Unsupported`."""
    for name in fields.keys() & refusals.keys():
        refusal = refusals[name]
        if not refusal.asks_nothing(fields[name]):
            raise Unsupported(f"{name} is not supported: {refusal.reason}", param=name)
        del fields[name]
    return fields


def _remove(fields: dict[str, Any], location: tuple[str | int, ...]) -> None:
    container: Any = fields
    for step in location[:-1]:
        container = container[step]
    container.pop(location[-1], None)
