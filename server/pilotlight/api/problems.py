"""What pydantic found wrong with a body -> one `BadRequest` in words a client's author can act on.

Says where, what was there and what is allowed. Never repeats text of the body beyond short names and numbers.
"""

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pilotlight.errors import BadRequest, UnknownField, Unsupported

Location = tuple[str | int, ...]

_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "none_required": "null",
    "finite_number": "a finite number",
}
MEMBER = "\0"
"""How the tag of a union's member begins, which pydantic puts into locations. No name in a body has it, see
`body`."""

_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def kind(value: Any) -> str:
    """The JSON type of a value, with its article."""
    return _KINDS.get(type(value), "something else")


def path(location: Location) -> str:
    """`messages[0].role`; members of unions are left out."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not step.startswith(MEMBER):
            text += f".{step[:80]}" if text else step[:80]
    return text


def unknown_locations(exc: ValidationError) -> list[Location]:
    """Where fields stand that nobody knows."""
    return [
        tuple(step for step in error["loc"] if isinstance(step, int) or not step.startswith(MEMBER))
        for error in exc.errors(include_url=False, include_context=False, include_input=False)
        if error["type"] == "extra_forbidden"
    ]


def describe(exc: ValidationError, model: type[BaseModel], refused: Iterable[str] = ()) -> BadRequest:
    """The first problem, as the error to answer with. Fields that are `refused` by name are known, too."""
    error = exc.errors(include_url=False)[0]
    name = path(error["loc"])
    if error["type"] == "extra_forbidden":
        known = (*model.model_fields, *refused) if len(error["loc"]) == 1 else _nested_names(model)
        return UnknownField(f"{name!r} is not a known field{_nearest(name, known)}", param=name)
    if error["type"] == "unsupported":
        return Unsupported(f"{name} {error['msg']}", param=name)
    return BadRequest(f"{name} {_complaint(error)}" if name else error["msg"], param=name or None)


def _complaint(error: ErrorDetails) -> str:
    given, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is required"
        case "literal_error":
            return f"must be {context['expected']}, not {_word(given) or _shown(given)}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            (bound,) = (f"{_BOUNDS[key]} {limit:g}" for key, limit in context.items())
            return f"must be {bound}, not {_shown(given)}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "too_long" | "string_too_long":
            unit = "characters" if isinstance(given, str) else "items"
            return f"must have at most {context['max_length']} {unit}, not {len(given)}"
        case known if known in _EXPECTED:
            return f"must be {_EXPECTED[known]}, not {_shown(given)}"
        case _:
            return error["msg"]


def _shown(value: Any) -> str:
    """A number as it is; of anything else only the type."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and abs(value) < 1e20:
        return str(value)
    return kind(value)


def _word(value: Any) -> str:
    """A short word where one of a few was expected; anything longer may be somebody's text."""
    is_word = isinstance(value, str) and len(value) <= 24 and value.isidentifier()
    return repr(value) if is_word else ""


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.rpartition(".")[2], known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


@cache
def _nested_names(model: type[BaseModel]) -> tuple[str, ...]:
    """The fields of everything inside the model."""
    definitions = model.model_json_schema().get("$defs", {}).values()
    return tuple({name for definition in definitions for name in definition.get("properties", ())})
