"""Files and folders on whatever disk the store is on, and what the system says of it, as errors of ours.

Knows nothing of models.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotlight.errors import NoSpace, PullFailed
from pilotlight.registry.description import written
from pilotlight.registry.private_file import FULL


@contextmanager
def usable(store: Path) -> Iterator[None]:
    """Raises `PullFailed`, or `NoSpace`, for whatever the system does not let us do in this folder."""
    try:
        yield
    except OSError as exc:
        kind = NoSpace if exc.errno in FULL else PullFailed
        raise kind(f"the store {written(store)} cannot be used: {exc.strerror or exc}") from exc


def is_linked(found: Path, target: Path) -> bool:
    """The same bytes take room once, and keep their old name, where the file system can do that."""
    try:
        os.link(found, target)
    except OSError:
        return False
    return True


@contextmanager
def moved(moves: dict[Path, Path]) -> Iterator[None]:
    """All of them have their new places, and after a failure their old ones again."""
    try:
        for path, target in moves.items():
            path.rename(target)
        yield
    except BaseException:
        for path, target in moves.items():
            if os.path.lexists(target):
                target.rename(path)
        raise


def bytes_of(path: Path) -> int:
    """What deleting it frees: the bytes that nothing outside it shares."""
    files = path.rglob("*") if path.is_dir() else [path]
    stats = [file.lstat() for file in files if not file.is_dir()]
    names = Counter((one.st_dev, one.st_ino) for one in stats)
    whole = {(one.st_dev, one.st_ino): one for one in stats}
    return sum(one.st_size for key, one in whole.items() if names[key] == one.st_nlink)


def make_private(folder: Path) -> Path:
    """The folder, made with all above it that is missing; `Path.mkdir` would leave those open to others."""
    for path in reversed((folder, *folder.parents)):
        path.mkdir(mode=0o700, exist_ok=True)
    return folder
