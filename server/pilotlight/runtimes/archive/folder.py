"""The folder of an archive: which files are in it, and which of them have to go.

What is in a file is `record`'s business. The daemon uses this, too, so nothing heavy is imported.
"""

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from pilotlight.core import Archive

NAME = "conversations"
"""Of the folder, in the state directory."""

SUFFIX = ".kv"

UNFINISHED = ".new-"
"""How names begin while a file is being written."""

UNFINISHED_S = 60.0
"""Much longer than anybody is given to write one: what is older was left behind."""

MOST_FILES = 512

_OURS = re.compile(rf"[0-9a-f]{{16}}-[0-9a-f]{{32}}{re.escape(SUFFIX)}|{re.escape(UNFINISHED)}.+")
"""Nothing else is ever touched."""


class Entry(Struct, frozen=True):
    """One file of an archive."""

    path: Path
    num_bytes: int
    used_at: float
    """Unix seconds."""

    @property
    def is_finished(self) -> bool:
        return self.path.suffix == SUFFIX


def entries(folder: Path) -> list[Entry]:
    """All files that an archive made, the last used first; none where there is no folder."""
    try:
        found = [_entry(item) for item in os.scandir(folder) if _OURS.fullmatch(item.name)]
    except OSError:
        return []
    return _last_used_first(entry for entry in found if entry)


def name_of(key: bytes, tokens: bytes) -> str:
    """A record's name: the same conversation of the same model has the same."""
    return f"{key_prefix(key)}{hashlib.sha256(tokens).hexdigest()[:32]}{SUFFIX}"


def key_prefix(key: bytes) -> str:
    """How the names begin of what was computed by the same model and settings."""
    return f"{key.hex()[:16]}-"


def num_bytes(folder: Path) -> int:
    """What they take of the disk."""
    return sum(entry.num_bytes for entry in entries(folder))


def make(folder: Path) -> None:
    """Have a folder that nobody else may look into. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)


def is_older(max_age_s: float, used_at: float) -> bool:
    """It was used longer ago than that. A time to come is a clock that was wrong."""
    return abs(time.time() - used_at) > max_age_s


def prune(archive: Archive, coming: Entry | None = None) -> bool:
    """Delete what is too old and what was left unfinished; of the rest what was not used for longest, until
    there is room for one that is `coming`, too. False if that is what would go. Raises `OSError`."""
    has_room = True
    room, left = archive.max_bytes, MOST_FILES
    for entry in _last_used_first([*entries(Path(archive.folder)), *([coming] if coming else [])]):
        max_age_s = archive.max_age_s if entry.is_finished else UNFINISHED_S
        if is_older(max_age_s, entry.used_at) or (entry.is_finished and (entry.num_bytes > room or not left)):
            entry.path.unlink(missing_ok=True)
            has_room = has_room and entry is not coming
        elif entry.is_finished:
            room -= entry.num_bytes
            left -= 1
    return has_room


def clear(folder: Path) -> None:
    """Delete all that an archive made. Raises `OSError`."""
    for entry in entries(folder):
        entry.path.unlink(missing_ok=True)


def _last_used_first(found: Iterable[Entry]) -> list[Entry]:
    return sorted(found, key=lambda entry: -entry.used_at)


def _entry(item: os.DirEntry[str]) -> Entry | None:
    """None for what is no plain file, or gone meanwhile."""
    try:
        found = item.stat(follow_symlinks=False)
    except OSError:
        return None
    return Entry(Path(item.path), found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None
