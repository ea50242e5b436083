"""Reads the small files by which Linux tells about itself, under a root that may be another than `/`.

Whatever they hold is a stranger's word: what cannot be read, is no number or is out of range is None. Nothing
here raises, blocks on a pipe, or reads more than `LONGEST` bytes.
"""

import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

LONGEST = 4096
"""Of a file, in bytes; sysfs has no longer ones."""

MOST_ENTRIES = 128
"""Of a folder that is looked at; a server with two sockets has a hundred thermal zones."""

LONGEST_NAME = 64
LARGEST = 10**15

AGAIN_S = 10.0
"""How often it is looked for what there is to read; which files these are hardly ever changes."""

T = TypeVar("T")


class Files:
    """The files below `root`; paths are relative to it."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.are_linux = are_linux(root)

    def text(self, path: str) -> str | None:
        """What the file holds, without white space around it; None if that is nothing, or not to be had."""
        try:
            file = os.open(self._at(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            return None
        try:
            return os.read(file, LONGEST).decode("ascii", "replace").strip("\0 \t\r\n") or None
        except OSError:  # many a driver answers so while it has no value
            return None
        finally:
            os.close(file)

    def number(self, path: str) -> int | None:
        """The decimal number that is all the file holds."""
        return number(self.text(path))

    def within(self, path: str, low: float, high: float, unit: float = 1.0) -> float | None:
        """The file's number, in multiples of `unit`, if it is between the two."""
        found = self.number(path)
        if found is None or not low <= found * unit <= high:
            return None
        return found * unit

    def names(self, folder: str, start: str = "") -> list[str]:
        """Of the first entries of the folder those that begin so, sorted; odd names are left out."""
        try:
            with os.scandir(self._at(folder)) as entries:
                found = [entry.name for entry in islice(entries, MOST_ENTRIES)]
        except OSError:
            return []
        return sorted(name for name in found if name.startswith(start) and _is_plain(name))

    def link(self, path: str) -> str | None:
        """Where the link leads; None if it is none."""
        try:
            return os.readlink(self._at(path))
        except OSError:
            return None

    def is_folder(self, path: str) -> bool:
        """There is a folder of this name."""
        return os.path.isdir(self._at(path))

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path)  # below Windows' root, a slash more would name another machine


def are_linux(root: Path) -> bool:
    """What is below this root are Linux' files: this machine's, or those of another that were put there."""
    return sys.platform == "linux" or root != Path(root.anchor)


class Remembered(Generic[T]):
    """What a look found; it is looked again once that is `AGAIN_S` old."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._found: tuple[float, T] | None = None

    def at(self, now: float) -> T:
        if self._found is None or now - self._found[0] >= AGAIN_S:
            self._found = now, self._look()
        return self._found[1]


def number(text: str | None) -> int | None:
    """A decimal number of a sensible size."""
    if text is None or len(text) > 20:
        return None
    try:
        found = int(text)
    except ValueError:
        return None
    return found if abs(found) <= LARGEST else None


def _is_plain(name: str) -> bool:
    return name.isprintable() and name.isascii() and len(name) <= LONGEST_NAME
