"""What `prune` deletes: folders, and downloads that nobody is at."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from pilotlight.store.locks import alone_at, give_up
from pilotlight.store.reading import MANIFEST


class Waste(Struct, frozen=True):
    """Something that `prune` removes, and the bytes of disk that it frees."""

    path: Path
    what: str
    bytes: int


def deleted(wasted: Iterable[Waste]) -> list[Waste]:
    """What could be deleted of it, unless some could not: the first reason is raised, at the end."""
    deleted, errors = [], []
    for waste in wasted:
        try:
            if _delete(waste.path):
                deleted.append(waste)
        except OSError as exc:
            errors.append(exc)
    if errors:
        raise errors[0]
    return deleted


def _delete(path: Path) -> bool:
    """A folder, or a download unless somebody has gone on with it since it was looked at."""
    if path.is_dir():
        with suppress(OSError):  # which is told of the folder
            # First, so that what is half deleted is no version. `rmtree` follows no link, so neither may we.
            if not path.is_symlink():
                (path / MANIFEST).unlink()
        shutil.rmtree(path)
        return True
    try:
        with alone_at(path, give_up):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    return True
