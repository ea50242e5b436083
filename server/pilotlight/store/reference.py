"""What to pull, as a person writes it: something of a repository on the hub, or a URL with its hash.

    owner/name                  the only model of a repository, or its Q4_K_M
    owner/name:Q8_0             the GGUF file of that quantization
    owner/name:file.gguf        one file
    owner/name:folder           one ONNX or MLX folder of several
    owner/name@revision:...     as it was at a branch, tag or commit
    https://host/file.gguf#sha256=...

Pure; whether any of it exists is the hub's business.
"""

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from pilotlight.errors import BadRequest
from pilotlight.store.paths import check_path

HUBS = ("hf.co/", "huggingface.co/", "hf://", "https://hf.co/", "https://huggingface.co/")
"""Beginnings under which people know a repository of the hub."""

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>[^:?\s]{{1,200}}))?(:(?P<pick>[^?\s]([^?]*[^?\s])?))?"
)
_PAGE = re.compile(
    rf"(?P<repo>{_PART}/{_PART})/(resolve|blob)/(?P<revision>[^/?]+)/(?P<pick>[^?#]+)(\?download=true)?"
)


class HubReference(Struct, frozen=True):
    """Something of a repository; `pick` is a quantization, a file or a folder, "" for the obvious one."""

    repo: str
    revision: str = "main"
    pick: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repo}{revision}{':' if self.pick else ''}{self.pick}"


class UrlReference(Struct, frozen=True):
    """One GGUF file on any server, and the SHA-256 that its bytes must have."""

    url: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.url}#sha256={self.sha256}"

    @property
    def file(self) -> str:
        """The name of its file."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name)

    @property
    def shown(self) -> str:
        """The URL without its query, which may be a secret."""
        return self.url.partition("?")[0]


Reference = HubReference | UrlReference


def parse(text: str) -> Reference:
    """Raises `BadRequest` with what would be right."""
    text = text.strip()
    hub = next((text.removeprefix(start) for start in HUBS if text.startswith(start)), None)
    if page := _PAGE.fullmatch(hub or ""):
        return HubReference(page["repo"], unquote(page["revision"]), check_path(unquote(page["pick"])))
    if hub is None and "://" in text:
        return _url(text)
    found = _HUB.fullmatch(text if hub is None else hub.rstrip("/"))
    if found is None or "--" in found["repo"]:
        raise BadRequest(
            f"{_shown(text)!r} is nothing to pull: give owner/name, owner/name:QUANT, owner/name:FILE "
            "or https://...#sha256=...",
            param="model",
        )
    return HubReference(
        found["repo"], found["revision"] or "main", check_path(found["pick"]) if found["pick"] else ""
    )


def _shown(text: str) -> str:
    """Without a query and what stands before a host, which may be secrets."""
    return re.sub(r"^(\w+:/+)?[^/]*@", r"\1...@", text.partition("?")[0])[:200]


def _url(text: str) -> UrlReference:
    url, _, fragment = text.partition("#")
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        # None of it is shown: the host stands beside what may be a password.
        raise BadRequest(
            "the URL has no host that there can be; give https://host/file.gguf#sha256=...", param="model"
        ) from exc
    found = UrlReference(url, fragment.removeprefix("sha256=").lower())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"{parts.scheme}:// is not downloaded from; http:// and https:// are", param="model")
    if parts.username or parts.password:
        raise BadRequest("a URL with a password is refused: it would be written to disk", param="model")
    if not re.fullmatch(r"[0-9a-f]{64}", found.sha256):
        raise BadRequest(
            f"{found.shown} needs the SHA-256 of the file, in hexadecimal: {found.shown}#sha256=...",
            param="model",
        )
    if not found.file.lower().endswith(".gguf"):
        raise BadRequest(
            f"{found.shown} is no GGUF file; folders are pulled from the hub only", param="model"
        )
    check_path(found.file)
    return found
