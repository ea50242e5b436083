"""What a response says of the policy: its headers, its `policy` object, and comments while a request waits.

Pure. Never an event of its own: clients would take one for a part of the answer.
"""

from typing import Any

import msgspec
from msgspec.structs import replace
from starlette.requests import Request as HttpRequest

from pilotlight.api.guard import Headers
from pilotlight.core import Model, Request
from pilotlight.errors import BadRequest
from pilotlight.policy.decide import Decision
from pilotlight.policy.facts import Facts
from pilotlight.power.reading import Reading

STRICT = "X-Policy"
OVERRIDE = "X-Policy-Override"

LONGEST_VALUE = 500


def facts(http: HttpRequest, request: Request, model: Model, small: Model | None) -> Facts:
    """What the policy is told of a request. Raises `BadRequest` for headers that say nothing it knows."""
    is_overridden = _is_given(http, OVERRIDE, "1")
    if is_overridden and request.request_class.yields:
        raise BadRequest(
            f"{OVERRIDE} is for interactive requests: what waits for it is a person", param=OVERRIDE
        )
    return replace(
        facts_of(request, model, small),
        is_strict=_is_given(http, STRICT, "strict"),
        is_overridden=is_overridden,
    )


def facts_of(request: Request, model: Model, small: Model | None) -> Facts:
    """As `facts`, of a request that has no headers; `small` may answer instead of the model."""
    return Facts(
        request_class=request.request_class,
        model=model.name,
        small=None if small is None else small.name,
        max_tokens=request.max_tokens,
        has_live_threads=model.capabilities.live_threads,
        small_has_live_threads=small is not None and small.capabilities.live_threads,
        is_chat=request.prompt.messages is not None,
    )


def headers(decision: Decision) -> Headers:
    """X-Policy-State, X-Policy-Action and X-Policy-Rule."""
    said = {
        b"x-policy-state": ";".join(f"{name}={value}" for name, value in state(decision.reading).items()),
        b"x-policy-action": ";".join(f"{name}={value}" for name, value in action(decision).items()),
        b"x-policy-rule": ", ".join(decision.rules),
    }
    return [(name, _printable(value or "none").encode()) for name, value in said.items()]


def body(decision: Decision) -> dict[str, Any] | None:
    """The `policy` object; None if nothing is restricted."""
    if not decision.fired:
        return None
    return {
        "state": state(decision.reading),
        "action": action(decision),
        "rules": decision.rules,
        "reason": decision.reason,
    }


def comment(decision: Decision) -> str:
    """What a stream says while it waits; JSON has no line breaks."""
    return "policy " + msgspec.json.encode(body(decision)).decode()


def state(reading: Reading) -> dict[str, str]:
    """What is known of the machine, of what rules can be about."""
    said = {
        "supply": reading.supply,
        "percent": _number(reading.percent, 0),
        "saver": None if reading.is_saving is None else str(reading.is_saving).lower(),
        "thermal": None if reading.thermal is None else reading.thermal.name.lower(),
        "headroom": _number(reading.headroom, 2),
        "memory": None if reading.memory is None else reading.memory.name.lower(),
        "load": _number(reading.load, 2),
    }
    return {name: str(value) for name, value in said.items() if value is not None}


def action(decision: Decision) -> dict[str, str]:
    """What is done with the request; the model by its name."""
    said = dict(decision.actions.words())
    if "model" in said:
        said["model"] = decision.facts.small or ""
    return said | {"override": "true"} if decision.facts.is_overridden else said


def kinds(decision: Decision) -> list[str]:
    """What is done with the request, in words that are few enough for metrics."""
    words = decision.actions.words()
    return [value if name == "admit" else name for name, value in words if name != "max_wait"]


def _is_given(http: HttpRequest, name: str, word: str) -> bool:
    values = set(http.headers.getlist(name))
    if values - {word}:
        raise BadRequest(f"the header {name} must be {word!r}", param=name)
    return bool(values)


def _number(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _printable(text: str) -> str:
    """As one header value: printable ASCII, bounded."""
    text = text[:LONGEST_VALUE]
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)
