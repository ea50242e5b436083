"""Files of what was measured: records by key, the oldest first.

One that is damaged counts as empty, and one that cannot be written is forgotten: all of it can be measured
again.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog
from msgspec import MsgspecError, convert, to_builtins
from msgspec.json import decode

from pilotlight.registry import private_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION = 1

MOST = 512
"""Records kept; the oldest go first."""

UNREADABLE = (OSError, MsgspecError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading a file comes to that anything may be written in."""

T = TypeVar("T", bound="DataclassInstance")

log = structlog.get_logger()


class Records(Generic[T]):
    """A file of dataclasses of one `kind`. Blocks on files; for one thread at a time."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._kind: Any = kind

    def read(self) -> dict[str, T]:
        """All, by key."""
        try:
            content = decode(self._path.read_bytes())
            if content["version"] != VERSION:
                return {}
            return {key: convert(one, self._kind) for key, one in content["measured"].items()}
        except FileNotFoundError:
            return {}
        except UNREADABLE as exc:
            log.warning("measurements are unreadable and start over", path=str(self._path), error=str(exc))
            return {}

    def add(self, key: str, record: T) -> None:
        """As the latest, in the place of what had its key."""
        others = {other: one for other, one in self.read().items() if other != key}
        latest = dict([*others.items(), (key, record)][-MOST:])
        content = {"version": VERSION, "measured": {key: to_builtins(one) for key, one in latest.items()}}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            private_file.write(self._path, json.dumps(content).encode())
        except OSError as exc:
            log.warning("measurements cannot be written", path=str(self._path), error=str(exc))
