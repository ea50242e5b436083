"""How urgent a request is and who asks, from its body, its headers and the settings.

In this order: the header `X-Request-Class`; a `service_tier` other than `auto`; the settings, by the client's
API key or User-Agent, where the first class that names it holds; else it is interactive. Pure.
"""

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from msgspec.structs import replace
from starlette.requests import Request as HttpRequest

from pilotlight.api.apps import app_of
from pilotlight.api.edge import Exchange
from pilotlight.core import Request, RequestClass
from pilotlight.errors import BadRequest
from pilotlight.settings import ClassesSettings, ClassSettings

HEADER = "X-Request-Class"

TIERS = {
    "default": RequestClass.INTERACTIVE,
    "priority": RequestClass.INTERACTIVE,
    "fast": RequestClass.INTERACTIVE,
    "scale": RequestClass.INTERACTIVE,
    "flex": RequestClass.BACKGROUND,
}
"""What OpenAI's tiers ask for; `auto` leaves it to the server."""

TIERS_USED = {
    RequestClass.INTERACTIVE: "default",
    RequestClass.BACKGROUND: "flex",
    RequestClass.BATCH: "flex",
}
"""The tier that an answer says it was made in."""


def classified(request: Request, http: HttpRequest, tier: str | None, settings: ClassesSettings) -> Request:
    """The request with its class, its client and its app; the response says the class in `X-Request-Class`.

    Raises `BadRequest` for a header that names no class.
    """
    found = _asked(http) or TIERS.get(tier or "auto") or _configured(http, settings)
    Exchange.of(http.scope).headers.append((HEADER.lower().encode(), found.value.encode()))
    app = app_of(http.headers.get("user-agent", ""))
    return replace(request, request_class=found, client=_client(http), app=app)


def _asked(http: HttpRequest) -> RequestClass | None:
    values = set(http.headers.getlist(HEADER))
    if not values:
        return None
    if len(values) > 1 or not values <= set(RequestClass):
        raise BadRequest(f"the header {HEADER} must be {_choice(list(RequestClass))}", param=HEADER)
    return RequestClass(values.pop())


def _configured(http: HttpRequest, settings: ClassesSettings) -> RequestClass:
    agent, key = http.headers.get("user-agent", ""), _key(http)
    for request_class in RequestClass:
        if _names(getattr(settings, request_class), agent.lower(), key):
            return request_class
    return RequestClass.INTERACTIVE


def _names(one: ClassSettings, agent: str, key: str) -> bool:
    return (bool(key) and key in one.keys) or any(
        fnmatchcase(agent, pattern.lower()) for pattern in one.agents
    )


def _key(http: HttpRequest) -> str:
    scheme, _, key = http.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _client(http: HttpRequest) -> str:
    """The same for requests with the same key, User-Agent and address; a digest, since keys are secret."""
    address = http.client.host if http.client else ""
    who = "\0".join((_key(http), http.headers.get("user-agent", ""), address))
    return hashlib.blake2b(who.encode(), digest_size=8).hexdigest()


def _choice(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
