"""A stranger's folder, walked within bounds: not out of the stores, not too deep, not without end.

Knows file systems, not models. Folders it listed and files that mattered are marked, so that one can tell
cheaply whether looking again would show anything else.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from pilotlight.registry.stores.found import Skipped
from pilotlight.registry.stores.places import Place

MAX_ENTRIES = 20_000
"""Per place: a store of a thousand models has some ten thousand; a whole disk has millions."""

MAX_NAME = 200

Mark = tuple[int, int, int] | None
"""Modification time in ns, size and inode of a file or folder; None if it is not there."""


class Tree:
    """Looks into one place; `allowed` are the real paths that links may lead into."""

    def __init__(self, place: Place, allowed: Sequence[Path]) -> None:
        self.place = place
        self.root = place.path
        self.skipped: list[Skipped] = []
        self.marks: dict[str, Mark] = {}
        self._allowed = allowed
        self._num_left = MAX_ENTRIES
        self._visited: set[tuple[int, int]] = set()

    def walk(self, folder: Path, depth: int) -> Iterator[tuple[Path, list[Path]]]:
        """Each folder and its files, sorted, down to `depth` levels below; none twice."""
        folders, files = self.entries(folder)
        yield folder, files
        for inner in folders if depth else ():
            yield from self.walk(inner, depth - 1)

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and regular files in it, sorted; without hidden ones, and nothing the second time."""
        if not self._is_inside(folder) or not self._visit(folder):
            return [], []
        folders, files = [], []
        for entry in self._names(folder):
            if (found := self._admit(entry)) is not None:
                if stat.S_ISDIR(found.st_mode):
                    folders.append(entry)
                elif stat.S_ISREG(found.st_mode):
                    files.append(entry)
        return folders, files

    def stat(self, path: Path) -> os.stat_result | None:
        """Of what the path leads to, and mark it; None where there is nothing, or nothing that we may see."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            found = None
        except OSError as exc:
            self.skip(path, f"cannot be read: {exc.strerror}")
            found = None
        self.marks[os.fspath(path)] = _mark(found)
        return found

    def file(self, path: Path) -> os.stat_result | None:
        """Of a regular file that was not listed but named; None if it is not there, or not in the store."""
        found = self._admit(path) if self._is_inside(path) else None
        if found is not None and not stat.S_ISREG(found.st_mode):
            self.skip(path, "is no file")
            return None
        return found

    def read(self, path: Path, max_bytes: int) -> bytes | None:
        """All of a file that is the store's; None, with a reason noted, if it cannot be read or is longer."""
        found = self.stat(path)
        if found is None or found.st_size > max_bytes:
            self.skip(path, f"is longer than {max_bytes} bytes" if found else "is gone")
            return None
        try:
            with path.open("rb") as file:
                return file.read(max_bytes)
        except OSError as exc:
            self.skip(path, f"cannot be read: {exc.strerror}")
            return None

    def skip(self, path: Path, reason: str) -> None:
        """Note that it is not used, and why."""
        self.skipped.append(Skipped(self.place.store, Path(_told(str(path))), _told(reason)))

    def _is_inside(self, path: Path) -> bool:
        """Told before what is there is opened."""
        real = Path(os.path.realpath(path))
        if any(real.is_relative_to(root) for root in self._allowed):
            return True
        self.skip(path, f"leads out of the store, to {real}")
        return False

    def _visit(self, folder: Path) -> bool:
        """It is a folder, and was not here before: links may go in circles."""
        found = self.stat(folder)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return False
        identity = found.st_dev, found.st_ino
        is_new = identity not in self._visited
        self._visited.add(identity)
        return is_new

    def _names(self, folder: Path) -> list[Path]:
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except OSError as exc:
            self.skip(folder, f"cannot be read: {exc.strerror}")
            return []
        if len(names) > self._num_left:
            self.skip(folder, f"holds too much: at most {MAX_ENTRIES} files are looked at")
        names = names[: self._num_left]
        self._num_left -= len(names)
        return [folder / name for name in names]

    def _admit(self, path: Path) -> os.stat_result | None:
        """What it leads to, if that is inside and there."""
        if not is_plain(path.name):
            self.skip(path, "its name is refused: it is too long or has characters that no name should have")
            return None
        try:
            if path.is_symlink() and not self._is_inside(path):
                return None
            return path.stat()
        except FileNotFoundError:
            self.marks[os.fspath(path)] = None
            if os.path.islink(path):
                self.skip(path, "is a link that leads nowhere")
        except OSError as exc:
            self.skip(path, f"cannot be read: {exc.strerror}")
        return None


def is_current(marks: Mapping[str, Mark]) -> bool:
    """Nothing that was looked at has changed since."""
    return all(_mark_at(path) == mark for path, mark in marks.items())


def is_plain(name: str) -> bool:
    """A file's name, on every system: no path, drive or `..`, and nothing that a terminal would act on."""
    return (
        0 < len(name) <= MAX_NAME
        and name not in (".", "..")
        and PureWindowsPath(name).name == name
        and "/" not in name
        and name.isprintable()
    )


def _told(text: str) -> str:
    """As a terminal and JSON can have it: names of files may have bytes that are no text."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _mark_at(path: str) -> Mark:
    try:
        return _mark(os.stat(path))
    except OSError:
        return None


def _mark(found: os.stat_result | None) -> Mark:
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
