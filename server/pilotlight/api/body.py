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

MAX_VALUES = 2**16
"""Fields of objects and items of arrays, all that a body has, besides the tokens of a prompt: each is looked
at, in the event loop, and may be wrong. Twenty thousand messages have as many."""
MAX_MISTAKES = 2**12
"""pydantic tells all of them or none, which takes microseconds for each."""


class Dialect(Struct, Generic[Body], frozen=True):
    """The bodies of one endpoint: their model, the known fields that are refused by name, and the one that
    may hold tokens, any number of them."""

    model: type[Body]
    refusals: Mapping[str, Refusal]
    tokens: str | None = None


async def read(http: Request, dialect: Dialect[Body], server: ServerSettings) -> tuple[Body, tuple[str, ...]]:
    """The body, and the names of unknown fields left out of it (with `unknown_fields = "warn"`)."""
    _check_content_type(http)
    raw = await _read_bytes(http, server.body_limit)
    return parse(raw, dialect, server.unknown_fields)


def parse(
    raw: bytes, dialect: Dialect[Body], unknown_fields: Literal["refuse", "warn"]
) -> tuple[Body, tuple[str, ...]]:
    """See `read`."""
    fields = _decode(raw)
    _check_size(fields, dialect.tokens)
    if b"\\u0000" in raw:
        _check_text(fields)
    _drop_refused(fields, dialect.refusals)
    try:
        return dialect.model.model_validate(fields), ()
    except ValidationError as exc:
        if (num_mistakes := exc.error_count()) > MAX_MISTAKES:
            raise BadRequest(
                f"the body has {num_mistakes} mistakes; of more than {MAX_MISTAKES} none is told"
            ) from None
        unknown = problems.unknown_locations(exc)
        if unknown_fields == "refuse" or not unknown:
            raise problems.describe(exc, dialect.model, dialect.refusals) from None
    for location in unknown:
        _remove(fields, location)
    try:
        return dialect.model.model_validate(fields), tuple(problems.path(location) for location in unknown)
    except ValidationError as exc:
        raise problems.describe(exc, dialect.model, dialect.refusals) from None


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
    return value


def _check_size(fields: dict[str, Any], tokens: str | None) -> None:
    """Before anything looks at each value: a small body may have millions."""
    uncounted = _tokens(fields.get(tokens)) if tokens is not None else None
    num_values = 0
    containers: list[dict[str, Any] | list[Any]] = [fields]
    while containers:
        container = containers.pop()
        num_values += len(container)
        if num_values > MAX_VALUES:
            raise BadRequest(f"the body has more than {MAX_VALUES} values besides the tokens of a prompt")
        items = container.values() if isinstance(container, dict) else container
        containers += [item for item in items if isinstance(item, dict | list) and item is not uncounted]


def _tokens(prompt: Any) -> list[int] | None:
    """The array of integers, alone or alone in an array."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list):
        prompt = prompt[0]
    return prompt if isinstance(prompt, list) and set(map(type, prompt)) == {int} else None


def _check_text(fields: dict[str, Any]) -> None:
    """Native code may take NUL for the end of the text and drop the rest in silence."""
    if (location := next(_nul_locations(fields, ()), None)) is not None:
        name = problems.path(location)
        raise BadRequest(f"{name or 'a field name'} contains the character U+0000", param=name or None)


def _nul_locations(value: Any, location: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str) and "\0" in value:
        yield location
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from [location] if "\0" in key else _nul_locations(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if not isinstance(item, int):  # a prompt may have millions
                yield from _nul_locations(item, (*location, index))


def _drop_refused(fields: dict[str, Any], refusals: Mapping[str, Refusal]) -> None:
    """Leave the fields that are done. One that asks for what this server does not do is `Unsupported`."""
    for name in fields.keys() & refusals.keys():
        refusal = refusals[name]
        if not refusal.asks_nothing(fields[name]):
            raise Unsupported(f"{name} is not supported: {refusal.reason}", param=name)
        del fields[name]


def _remove(fields: dict[str, Any], location: tuple[str | int, ...]) -> None:
    container: Any = fields
    for step in location[:-1]:
        container = container[step]
    container.pop(location[-1], None)
