"""Who may talk to the daemon: Host and Origin rules, and the CORS answers that follow from them.

Pure: headers in, headers out. A web page must not reach a server on the visitor's own machine, neither
by naming another Origin nor by rebinding its DNS name to 127.0.0.1, nor by loading from it what names none:
pictures, scripts, frames. Knows no paths and no keys.

`Origin: null` is refused unless `server.allowed_origins` lists it: webviews send it, but so does a
sandboxed iframe of any hostile page, and nothing in the request tells them apart.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from pilotlight.errors import NotAllowed
from pilotlight.settings import ServerSettings, is_loopback

Headers = list[tuple[bytes, bytes]]

_APP_SCHEMES = frozenset({"app", "file", "vscode-webview"})
"""Schemes no web page can have: Obsidian and other Electron apps, local files, VS Code panels."""
_APP_ORIGINS = frozenset({"tauri://localhost"})
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~,\- ]*")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(:\d*)?")


class Guard:
    """Decides from the headers of one request; holds only what the settings say."""

    def __init__(self, server: ServerSettings) -> None:
        self._hosts = frozenset(_bare(host) for host in (server.host, *server.allowed_hosts))
        self._is_open = not is_loopback(server.host)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in server.allowed_origins)

    def admit(self, headers: Headers) -> Headers:
        """The CORS headers its response needs. Raises `NotAllowed`."""
        host, origin = only(headers, b"host"), only(headers, b"origin")
        self._check_host(host)
        if origin is None:
            _check_fetch(headers)
            return [(b"vary", b"Origin")]
        self._check_origin(origin, host)
        return [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", origin),
            (
                b"access-control-expose-headers",
                b"x-request-id, x-request-class, retry-after, x-pilotlight-warnings, "
                b"x-policy-state, x-policy-action, x-policy-rule, x-queue-wait-ms, x-should-retry",
            ),
        ]

    def preflight(self, headers: Headers) -> Headers | None:
        """What an admitted CORS preflight is answered; None when the request is not one."""
        asked = dict(headers)
        if b"origin" not in asked or b"access-control-request-method" not in asked:
            return None
        names = asked.get(b"access-control-request-headers", b"")
        answer = [
            (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE, OPTIONS"),
            (b"access-control-allow-headers", names if _HEADER_NAMES.fullmatch(names) else b"content-type"),
            (b"access-control-max-age", b"600"),
        ]
        if asked.get(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer

    def _check_host(self, host: bytes | None) -> None:
        match = _HOST.fullmatch((host or b"").decode("latin-1").lower())
        name = _bare(match[1]) if match else ""
        if name not in self._hosts and not _is_local(name) and not (self._is_open and _is_address(name)):
            raise NotAllowed(
                f"the Host header {_shown(host)} is not this machine; call http://127.0.0.1, "
                "or add the name to server.allowed_hosts"
            )

    def _check_origin(self, origin: bytes, host: bytes | None) -> None:
        text = origin.decode("latin-1").lower()
        if text in self._origins or text in _APP_ORIGINS:
            return
        scheme, _, rest = text.partition("://")
        if scheme in _APP_SCHEMES:
            return
        # A page that the daemon itself served is same-origin: its Host was checked before.
        is_own = rest == (host or b"").decode("latin-1").lower()
        if scheme not in ("http", "https") or not (is_own or _is_local(_hostname(text))):
            raise NotAllowed(
                f"web pages of {_shown(origin)} may not use this server; add the origin to "
                "server.allowed_origins to let them"
            )


def only(headers: Headers, name: bytes) -> bytes | None:
    """The header's value. Two of them are an attempt to be read differently by two readers."""
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise NotAllowed(f"the request has {len(values)} {name.decode().title()} headers")
    return values[0] if values else None


def _check_fetch(headers: Headers) -> None:
    """What browsers say of a request without Origin; other clients say nothing. Who follows a link loads a
    document. In mode `cors` pages name their Origin, unless they are of an app that has switched that off."""
    if only(headers, b"sec-fetch-site") != b"cross-site" or only(headers, b"sec-fetch-mode") == b"cors":
        return
    if only(headers, b"sec-fetch-dest") != b"document":
        raise NotAllowed(
            "web pages of other sites may not load anything from this server; fetch it with CORS, from an "
            "origin in server.allowed_origins"
        )


def _bare(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def _hostname(origin: str) -> str:
    try:
        return _bare(urlsplit(origin).hostname or "")
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    """Loopback, or a name in the domain that RFC 6761 gives to it: how we are called, not where we listen."""
    return is_loopback(host) or host.endswith(".localhost")


def _is_address(host: str) -> bool:
    """And no name, which whoever owns it could rebind."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _shown(value: bytes | None) -> str:
    return repr((value or b"").decode("latin-1")[:100])
