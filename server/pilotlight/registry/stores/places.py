"""Where the stores of other programs are on this machine, as those programs themselves look it up.

Knows the variables and files that say so, not what the stores hold.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Literal

from msgspec import Struct

Store = Literal["folder", "huggingface", "ollama", "lmstudio"]

OLLAMA_SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama keeps its models when Linux runs it as a service."""

MAX_SETTINGS_BYTES = 2**20


class Place(Struct, frozen=True):
    """A folder that may hold models, and how they are laid out there; it need not exist."""

    store: Store
    path: Path


def places(
    stores: Iterable[str], folders: Iterable[Path], environ: Mapping[str, str], home: Path
) -> tuple[Place, ...]:
    """Those of the stores that are switched on, after the user's own folders."""
    known: dict[Store, list[Path]] = {
        "huggingface": [_huggingface(environ, home)],
        "ollama": _ollama(environ, home),
        "lmstudio": _lmstudio(home),
    }
    own = [Place("folder", folder) for folder in folders]
    return (
        *own,
        *(Place(store, path) for store, paths in known.items() if store in stores for path in paths),
    )


def _huggingface(environ: Mapping[str, str], home: Path) -> Path:
    """In the order in which huggingface_hub looks."""
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    base = _path(environ.get("HF_HOME"), environ, home) or cache / "huggingface"
    given = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return _path(given, environ, home) or base / "hub"


def _ollama(environ: Mapping[str, str], home: Path) -> list[Path]:
    given = _path(environ.get("OLLAMA_MODELS", "").strip("\"' "), environ, home)
    return [given] if given else [home / ".ollama" / "models", OLLAMA_SERVICE]


def _lmstudio(home: Path) -> list[Path]:
    """Its folder for downloads: what its settings say, else below its home, which a file may name."""
    named = _folder(_read(home / ".lmstudio-home-pointer").decode(errors="replace").strip())
    homes = [*([named] if named else []), home / ".lmstudio", home / ".cache" / "lm-studio"]
    return list(dict.fromkeys(_downloads(one) or one / "models" for one in homes))


def _downloads(lmstudio: Path) -> Path | None:
    try:
        return _folder(json.loads(_read(lmstudio / "settings.json"))["downloadsFolder"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _folder(text: object) -> Path | None:
    """A folder that another program names, if it can be one. Raises `ValueError` for what is no text."""
    if not isinstance(text, str) or not os.path.isabs(text) or "\0" in text:
        return None
    os.fsencode(text)  # half a character is JSON, and no path
    return Path(text)


def _read(file: Path) -> bytes:
    """The beginning of a small file of somebody else's; nothing where there is none."""
    try:
        if not file.is_file():
            return b""
        with file.open("rb") as stream:
            return stream.read(MAX_SETTINGS_BYTES)
    except (OSError, ValueError):
        return b""


def _path(value: str | None, environ: Mapping[str, str], home: Path) -> Path | None:
    """A path that a person wrote into a variable: with other variables and ~ in it, maybe."""
    if not value:
        return None
    plain = Template(value).safe_substitute(environ)
    return home / plain[2:] if plain.startswith("~/") else Path(plain).absolute()
