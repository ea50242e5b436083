"""Which requests need a key, and which keys open what.

Without keys in the settings, whoever can connect may ask for answers. What changes the daemon or tells where
the user's files are (/admin) always wants the admin key, which opens everything else, too. Knows no models.
"""

import hmac
from collections.abc import Iterable
from pathlib import Path

from pilotlight.api.guard import Headers, only
from pilotlight.errors import InvalidKey
from pilotlight.registry import keys

ADMIN = "/admin/"

PUBLIC = frozenset({"/health", "/ready"})
"""Supervisors ask for these."""


class Keys:
    """The admin key, which lies in the state directory, and those of `server.api_keys`, if there are any."""

    def __init__(self, admin: str, state_dir: Path, api: Iterable[str] = ()) -> None:
        self._admin = admin.encode()
        self._api = [key.encode() for key in api]
        self._where = _written(keys.admin_file(state_dir))

    def check(self, path: str, headers: Headers) -> None:
        """Raises `InvalidKey` if requests to this path need another key than theirs, or any."""
        given = _bearer(headers)
        if path.startswith(ADMIN):
            if not _matches(given, [self._admin]):
                raise InvalidKey(f"/admin needs the key in {self._where}: {_how(given)}")
        elif path not in PUBLIC and not self._opens(given):
            raise InvalidKey(f"this server needs an API key, one of its server.api_keys: {_how(given)}")

    def is_known(self, headers: Headers) -> bool:
        """Who asks may hear more than that we are alive."""
        return self._opens(_bearer(headers))

    def _opens(self, given: bytes) -> bool:
        return not self._api or _matches(given, [self._admin, *self._api])


def _bearer(headers: Headers) -> bytes:
    scheme, _, key = (only(headers, b"authorization") or b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _matches(given: bytes, known: Iterable[bytes]) -> bool:
    """All are compared, so that the time it takes tells nothing."""
    matches = [hmac.compare_digest(given, key) for key in known]
    return any(matches)


def _how(given: bytes) -> str:
    if given:
        return "the one that was sent is not it"
    return "send it as the header `Authorization: Bearer KEY`"


def _written(file: Path) -> str:
    """Short, and without the user's name."""
    return f"~/{file.relative_to(Path.home())}" if file.is_relative_to(Path.home()) else str(file)
