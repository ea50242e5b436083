"""Lists in pages, by OpenAI's rules: `after` an id, at most `limit` of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pilotlight.api import problems
from pilotlight.errors import BadRequest


class Identified(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Identified)
Q = TypeVar("Q", bound="PageQuery")


class PageQuery(BaseModel):
    """What the address asks for; numbers are text there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: str | None = None
    limit: int


def parse(given: Mapping[str, str], query: type[Q]) -> Q:
    """Raises `BadRequest`."""
    try:
        return query.model_validate(dict(given))
    except ValidationError as exc:
        raise problems.describe(exc, query) from None


def page(records: Sequence[R], query: PageQuery, body: Callable[[R], dict[str, Any]]) -> dict[str, Any]:
    """The list object. Raises `BadRequest` for an `after` that is not in the list."""
    begin = 0
    if query.after is not None:
        ids = [record.id for record in records]
        if query.after not in ids:
            raise BadRequest(f"after: there is no {query.after[:80]!r} in this list", param="after")
        begin = ids.index(query.after) + 1
    shown = records[begin : begin + query.limit]
    return {
        "object": "list",
        "data": [body(record) for record in shown],
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": begin + query.limit < len(records),
    }
