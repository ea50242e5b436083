"""Who wants a version that is not active yet: a lock for each pull, which ends with its process."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotlight.store.disk import make_private
from pilotlight.store.locks import alone_at, is_busy
from pilotlight.store.paths import folder_name


class Keepers:
    """The locks, in a folder of the store. Blocking."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def keeping(self, name: str, version_id: str) -> Iterator[None]:
        """Somebody wants this version meanwhile, whatever process asks."""
        make_private(self._folder)
        # A lock of its own for each pull that wants it: whoever ends first takes it from nobody else.
        keeper = self._folder / f"{_begin(name, version_id)}{secrets.token_hex(4)}.version"
        with alone_at(keeper, lambda: None):
            yield

    def is_kept(self, name: str, version_id: str) -> bool:
        """Somebody wants this version."""
        locks = self._folder.glob("*.lock") if self._folder.is_dir() else ()
        return any(is_busy(lock) for lock in locks if lock.name.startswith(_begin(name, version_id)))


def _begin(name: str, version_id: str) -> str:
    """How the names of the locks begin that pulls have while they want the version."""
    return f"{folder_name(name)}-{version_id}-"
