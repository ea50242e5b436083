"""What `prune` deletes: folders, and downloads that nobody is at."""

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from msgspec import Struct

from pilotlight.store.locks import alone_at, give_up
from pilotlight.store.reading import MANIFEST

_OURS = re.compile(r"[0-9a-f]{12}|\.new-.*")
"""What we put beside the record of a model: versions by their ids, and what is being made."""

log = structlog.get_logger()


class Waste(Struct, frozen=True):
    """Something that `prune` removes, and the bytes of disk that it frees."""

    path: Path
    what: str
    bytes: int


@contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """What we may not look at is none of our waste; it is logged."""
    try:
        yield
    except OSError as exc:
        log.warning(
            "what is in the store cannot be looked at and is left alone", path=str(path), error=str(exc)
        )


def is_left_over(folder: Path) -> bool:
    """A model was here, and is deleted, but for what the system kept. Whatever else somebody puts among the
    models is theirs. Raises `OSError`."""
    is_folder = folder.is_dir() and not folder.is_symlink()
    return is_folder and all(_OURS.fullmatch(path.name) for path in folder.iterdir())


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
