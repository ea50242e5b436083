"""What the store's own files say, whatever became of them."""

from pathlib import Path
from typing import TypeVar

import structlog

from pilotlight.errors import BadRequest
from pilotlight.store.manifest import Record, Version, decode
from pilotlight.store.paths import check_path

RECORD, MANIFEST = "model.json", "version.json"

LEFT_OUT = "a file of the store cannot be read and is left out"

T = TypeVar("T", Record, Version)

log = structlog.get_logger()


def versions_of(folder: Path) -> list[Version]:
    """Those in the folder of a model, oldest first."""
    found = [read(file, Version) for file in folder.glob(f"[!.]*/{MANIFEST}")]
    safe = [version for version in found if version is not None and _is_safe(version)]
    return sorted(safe, key=lambda version: version.pulled)


def read(path: Path, kind: type[T]) -> T | None:
    """As `read_or_raise`; None also for what cannot be read just now, which is logged, too."""
    try:
        return read_or_raise(path, kind)
    except OSError as exc:
        log.warning(LEFT_OUT, path=str(path), error=str(exc))
        return None


def read_or_raise(path: Path, kind: type[T]) -> T | None:
    """None for what is not there, and for what is damaged, which is logged. Raises `OSError`."""
    try:
        value: T = decode(path.read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as exc:
        log.warning(LEFT_OUT, path=str(path), error=str(exc))
        return None
    return value


def _is_safe(version: Version) -> bool:
    """None of its paths leads out of its folder."""
    try:
        for path in (version.id, *(file.path for file in version.files), version.entry or version.id):
            check_path(path)
    except BadRequest as exc:
        log.warning("a version in the store is left out", version=version.id[:40], reason=exc.message)
        return False
    return True
