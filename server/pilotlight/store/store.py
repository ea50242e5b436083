"""The folder with the models that were pulled: versions side by side, of which one is active.

    models/<name>/model.json            the `Record`: which version is active
    models/<name>/<version>/version.json, files...
    incoming/<digest>.part              half a download; nobody takes it for a model
    incoming/<digest>                   whole and verified, until its version has all its files

What has a real name is whole: a version's folder appears in one rename, and so does a change of `model.json`.
All of it is private to the user. Knows nothing of networks and workers.
"""

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from pilotlight.errors import BadRequest, ModelNotFound, NoRollback, PullFailed
from pilotlight.registry import private_file
from pilotlight.store.manifest import File, Record, Version, decode, encode
from pilotlight.store.paths import check_path, folder_name

RECORD, MANIFEST = "model.json", "version.json"

T = TypeVar("T", Record, Version)

log = structlog.get_logger()


class Stored(Struct, frozen=True):
    """A model with an active version; `path` is what a runtime loads."""

    name: str
    path: Path
    record: Record
    version: Version


class Waste(Struct, frozen=True):
    """Something that `prune` removes, and the bytes of disk that it frees."""

    path: Path
    what: str
    bytes: int


class Store:
    """Owns one store folder. Several processes may use it: changes take its lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._models = root / "models"
        self._incoming = root / "incoming"

    # --- looking ---

    def models(self) -> list[Stored]:
        """Every model that can be loaded, by name. What is damaged is left out and logged."""
        found = []
        for record in self.records():
            if record.active is not None and (stored := self._stored(record)) is not None:
                found.append(stored)
        return found

    def records(self) -> list[Record]:
        """Every model, also those without an active version."""
        found = [(folder, _read(folder / RECORD, Record)) for folder in self._folders()]
        return [record for folder, record in found if record is not None and _is_of(record, folder)]

    def record(self, name: str) -> Record:
        """The model of this name, or else of this short name. Raises `ModelNotFound`."""
        records = self.records()
        found = [record for record in records if record.name == name]
        found += [record for record in records if short_name(record.name) == name]
        if not found:
            known = ", ".join(record.name for record in records) or "none"
            raise ModelNotFound(f"no pulled model is named {name[:200]!r}; there is: {known}", param="model")
        return found[0]

    def versions(self, name: str) -> list[Version]:
        """Oldest first, active or not."""
        found = [_read(file, Version) for file in self._folder(name).glob(f"[!.]*/{MANIFEST}")]
        safe = [version for version in found if version is not None and _is_safe(version)]
        return sorted(safe, key=lambda version: version.pulled)

    def path(self, name: str, version: Version) -> Path:
        """What a runtime loads. Raises `BadRequest` if any of it lies outside the store."""
        folder = self._folder(name) / version.id
        for path in (folder, *(folder / file.path for file in version.files)):
            is_inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root))
            if not is_inside or path.is_symlink():
                raise BadRequest(f"{path} leads out of the store, so it is not used")
        return folder / version.entry

    # --- downloads ---

    def part(self, digest: str) -> Path:
        """Where half a download of these bytes is kept; its folder exists.

        Raises `BadRequest` for what is no digest: it comes from a stranger, and becomes the name of a file.
        """
        if not re.fullmatch(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}", digest):
            raise BadRequest(f"{digest[:80]!r} is no SHA-256 and no git hash")
        _make_private(self._incoming)
        return self._incoming / f"{digest.replace(':', '-')}.part"

    def arrived(self, digest: str) -> Path:
        """Where these bytes are once they are whole and verified."""
        return self.part(digest).with_suffix("")

    def find(self, file: File) -> Path | None:
        """A file with these bytes that is in the store already, in a version or just arrived."""
        if (arrived := self.arrived(file.digest)).is_file():
            return arrived
        for record in self.records():
            for version in self.versions(record.name):
                for other in version.files:
                    path = self._folder(record.name) / version.id / other.path
                    is_it = other.digest == file.digest and os.path.isfile(path)
                    if is_it and path.stat().st_size == other.size:
                        return path
        return None

    def bytes_free(self) -> int:
        """Of the file system it is on."""
        return shutil.disk_usage(_make_private(self.root)).free

    # --- changes ---

    def install(self, name: str, version: Version) -> Version:
        """Give the files that have arrived their names, in one rename; nothing is active by that.

        A version that is there already stays as it is. Returns it with the sizes of its files.
        """
        with self.locked():
            folder = _make_private(self._folder(name))
            if (known := _read(folder / version.id / MANIFEST, Version)) is not None:
                return known
            staging = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
            try:
                version = self._fill(staging, version)
                private_file.write(staging / MANIFEST, encode(version), is_lasting=True)
                staging.rename(folder / version.id)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            if not (folder / RECORD).exists():
                private_file.write(folder / RECORD, encode(Record(name, version.origin)), is_lasting=True)
            _sync(folder)
        return version

    def activate(self, name: str, version: Version) -> None:
        """Serve this version from now on, and keep the one before it for `rollback`.

        Raises `PullFailed` if it was deleted meanwhile.
        """
        with self.locked():
            if version.id not in {one.id for one in self.versions(name)}:
                raise PullFailed(
                    f"version {version.id} of {name} was deleted while it was tested; pull it again"
                )
            record = self.record(name)
            previous = record.previous if record.active == version.id else record.active
            failures = {key: reason for key, reason in record.failures.items() if key != version.id}
            self._save(Record(name, version.origin, version.id, previous, failures))

    def refuse(self, name: str, version: Version, reason: str) -> None:
        """Remember why this version is not activated."""
        with self.locked():
            record = self.record(name)
            self._save(msgspec.structs.replace(record, failures=record.failures | {version.id: reason}))

    def rollback(self, name: str) -> Record:
        """Serve the previous version again, and keep the active one as previous. Raises `NoRollback`."""
        with self.locked():
            record = self.record(name)
            there = {version.id for version in self.versions(record.name)}
            if record.previous is None or record.previous not in there:
                raise NoRollback(
                    f"{record.name} has no previous version; `pilotlight pull` keeps it when it gets another"
                )
            record = msgspec.structs.replace(record, active=record.previous, previous=record.active)
            self._save(record)
        return record

    def remove(self, name: str) -> int:
        """Delete a model with all its versions; returns the bytes that this frees. Raises `ModelNotFound`."""
        with self.locked():
            folder = self._folder(self.record(name).name)
            freed = _bytes_of(folder)
            # Without its record it is no model any more, also when we are killed while deleting.
            (folder / RECORD).unlink()
            shutil.rmtree(folder)
        return freed

    def waste(self) -> list[Waste]:
        """What is not active: other versions, and downloads that nobody is at."""
        found = [
            self._waste(record, folder) for record in self.records() for folder in self._inactive(record)
        ]
        for folder in self._folders():
            if not (folder / RECORD).exists():
                found.append(Waste(folder, "what is left of a deleted model", _bytes_of(folder)))
        for path in sorted(self._incoming.glob("*")) if self._incoming.is_dir() else ():
            if path.suffix != ".lock" and not is_busy(path):
                found.append(Waste(path, "an unfinished download", _bytes_of(path)))
        return found

    def prune(self) -> list[Waste]:
        """Delete what is not active; returns it. There is nothing to roll back to then."""
        with self.locked():
            wasted = self.waste()
            for waste in wasted:
                if waste.path.is_dir():
                    shutil.rmtree(waste.path)
                else:
                    waste.path.unlink(missing_ok=True)
            for record in self.records():
                self._save(msgspec.structs.replace(record, previous=None, failures={}))
        return wasted

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the store meanwhile, in this process or another."""
        from filelock import FileLock

        with FileLock(_make_private(self.root) / "store.lock", mode=0o600):
            yield

    # --- inside ---

    def _folder(self, name: str) -> Path:
        return self._models / folder_name(name)

    def _folders(self) -> list[Path]:
        return sorted(self._models.iterdir()) if self._models.is_dir() else []

    def _stored(self, record: Record) -> Stored | None:
        version = next((one for one in self.versions(record.name) if one.id == record.active), None)
        if version is None:
            return None
        try:
            return Stored(record.name, self.path(record.name, version), record, version)
        except (BadRequest, OSError) as exc:
            log.warning("a pulled model is not used", model=record.name, reason=str(exc))
            return None

    def _fill(self, staging: Path, version: Version) -> Version:
        """Put the version's files there; returns it with their sizes. Raises `PullFailed` if one is gone."""
        placed: dict[str, Path] = {}
        files = []
        for file in version.files:
            target = staging / check_path(file.path)
            _make_private(target.parent)
            found = placed.get(file.digest) or self.find(file)
            if found is None:
                raise PullFailed(f"{file.path} was removed while the rest was downloaded; pull it again")
            if found.parent == self._incoming:
                found.rename(target)
            else:
                _share(found, target)
            placed[file.digest] = target
            files.append(msgspec.structs.replace(file, size=target.stat().st_size))
        return msgspec.structs.replace(version, files=tuple(files))

    def _inactive(self, record: Record) -> list[Path]:
        folder = self._folder(record.name)
        return sorted(path for path in folder.iterdir() if path.is_dir() and path.name != record.active)

    def _waste(self, record: Record, folder: Path) -> Waste:
        return Waste(folder, f"{record.name}, version {folder.name}", _bytes_of(folder))

    def _save(self, record: Record) -> None:
        private_file.write(self._folder(record.name) / RECORD, encode(record), is_lasting=True)


def short_name(name: str) -> str:
    """What people call it: without the owner of its repository, and without saying that it is a GGUF. All of
    it, if that leaves nothing."""
    repo, colon, label = name.rpartition("/")[2].partition(":")
    return re.sub(r"[-_.]gguf$", "", repo, flags=re.IGNORECASE) + colon + label or name


@contextmanager
def alone_at(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Nobody else downloads to this path meanwhile, in any process; `on_wait` is called if somebody does."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(".lock"), mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        # Before it is let go: who waits for it notices that the file is gone, and takes a new one.
        with suppress(PermissionError):  # Windows deletes it afterwards
            path.with_suffix(".lock").unlink(missing_ok=True)
        lock.release()


def is_busy(path: Path) -> bool:
    """Somebody is downloading to this path."""

    def give_up() -> None:
        raise BlockingIOError

    try:
        with alone_at(path, give_up):
            return False
    except BlockingIOError:
        return True


def _is_of(record: Record, folder: Path) -> bool:
    """It is where a model of its name belongs."""
    try:
        is_there = folder_name(record.name) == folder.name
    except BadRequest:
        is_there = False
    if not is_there:
        log.warning("a folder of the store is not its model's and is left out", path=str(folder))
    return is_there


def _is_safe(version: Version) -> bool:
    """None of its paths leads out of its folder."""
    try:
        for path in (version.id, *(file.path for file in version.files), version.entry or version.id):
            check_path(path)
    except BadRequest as exc:
        log.warning("a version in the store is left out", version=version.id[:40], reason=exc.message)
        return False
    return True


def _share(found: Path, target: Path) -> None:
    """The same bytes in two versions take room once, where the file system can do that."""
    try:
        os.link(found, target)
    except OSError:
        shutil.copyfile(found, target)
        target.chmod(0o600)


def _bytes_of(path: Path) -> int:
    """What deleting it frees: the bytes that nothing outside it shares."""
    files = path.rglob("*") if path.is_dir() else [path]
    stats = [file.lstat() for file in files if not file.is_dir()]
    names = Counter((stat.st_dev, stat.st_ino) for stat in stats)
    whole = {(stat.st_dev, stat.st_ino): stat for stat in stats}
    return sum(stat.st_size for key, stat in whole.items() if names[key] == stat.st_nlink)


def _read(path: Path, kind: type[T]) -> T | None:
    """None for what is not there, and for what is damaged, which is logged."""
    try:
        value: T = decode(path.read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as exc:
        log.warning("a file of the store cannot be read and is left out", path=str(path), error=str(exc))
        return None
    return value


def _make_private(folder: Path) -> Path:
    """The folder, made with all above it that is missing; `Path.mkdir` would leave those open to others."""
    for path in reversed((folder, *folder.parents)):
        path.mkdir(mode=0o700, exist_ok=True)
    return folder


def _sync(folder: Path) -> None:
    """Make the names in a folder last, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
