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
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from pilotlight.errors import BadRequest, ModelNotFound, NoRollback, PullFailed
from pilotlight.registry import private_file
from pilotlight.store.disk import bytes_of, is_linked, make_private, moved
from pilotlight.store.locks import alone_at, give_up, is_busy
from pilotlight.store.manifest import File, Record, Version, decode, encode
from pilotlight.store.paths import check_path, folder_name

RECORD, MANIFEST = "model.json", "version.json"

LEFT_OUT = "a file of the store cannot be read and is left out"

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
        """Every model that can be loaded, by name. What is damaged is left out and logged.

        Raises `OSError` where we may not look.
        """
        found = [self._stored(record) for record in self.records()]
        return [stored for stored in found if stored is not None]

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

    def name_of(self, name: str) -> str:
        """The name of the model that `record` finds, or of one whose record cannot be read, which has to be
        named in full. Raises `ModelNotFound`."""
        try:
            return self.record(name).name
        except ModelNotFound:
            folders = [folder for folder in self._folders() if _is_folder_of(name, folder)]
            if any(os.path.lexists(folder / RECORD) for folder in folders):
                return name
            raise

    def versions(self, name: str) -> list[Version]:
        """Oldest first, active or not."""
        return _versions(self._folder(name))

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
        make_private(self._incoming)
        return self._incoming / f"{digest.replace(':', '-')}.part"

    def arrived(self, digest: str) -> Path:
        """Where these bytes are once they are whole and verified."""
        return self.part(digest).with_suffix("")

    def find(self, file: File) -> Path | None:
        """A file with these bytes that is in the store already, in a version or just arrived."""
        if (arrived := self.arrived(file.digest)).is_file():
            return arrived
        for folder in self._folders():  # not records: those of one that cannot be read are here, too
            for version in _versions(folder):
                for other in version.files:
                    path = folder / version.id / other.path
                    if other.digest == file.digest and _is_whole(path, other):
                        return path
        return None

    def check_free(self, name: str) -> None:
        """Raises `BadRequest` if another model has the folder of this one: to the file systems of macOS and
        Windows `A` and `a` are the same."""
        record = _read(self._folder(name) / RECORD, Record)
        if record is not None and record.name != name:
            raise BadRequest(
                f"{name} cannot be kept beside {record.name}: on this file system they have the same folder; "
                f"`pilotlight rm {record.name}` first, or give this one another name"
            )

    def bytes_free(self) -> int:
        """Of the file system it is on."""
        return shutil.disk_usage(make_private(self.root)).free

    # --- changes ---

    def install(self, name: str, version: Version) -> Version:
        """Give the files that have arrived their names, in one rename; nothing is active by that.

        A version that is whole already stays as it is. Returns it with the sizes of its files. If it fails,
        what has arrived is kept for the next try. Raises `BadRequest` as `check_free` does.
        """
        with self.locked():
            self.check_free(name)
            folder = make_private(self._folder(name))
            known = self._version(name, version.id)
            if known is None or not self._has_all(name, known):
                known = self._put_together(folder, version)
            # What cannot be read just now still says which version is active.
            if _known(folder / RECORD, Record) is None:
                private_file.write(folder / RECORD, encode(Record(name, version.origin)), is_lasting=True)
            private_file.sync(folder)
            # Last, so that being killed before costs no download.
            for file in version.files:
                self.arrived(file.digest).unlink(missing_ok=True)
        return known

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
            versions = self.versions(record.name)
            whole = {version.id for version in versions if self._has_all(record.name, version)}
            if record.previous is None or record.previous not in whole:
                raise NoRollback(
                    f"{record.name} has no previous version; `pilotlight pull` keeps it when it gets another"
                )
            record = msgspec.structs.replace(record, active=record.previous, previous=record.active)
            self._save(record)
        return record

    def remove(self, name: str) -> int:
        """Delete a model with all its versions; returns the bytes that this frees. Raises `ModelNotFound`.

        What the system keeps, because it is open for instance, is left for `prune`.
        """
        with self.locked():
            folder = self._folder(self.name_of(name))
            freed = bytes_of(folder)
            # Without its record it is no model any more, also when we are killed while deleting.
            (folder / RECORD).unlink()
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                log.warning("some of a deleted model is left for `pilotlight prune`", path=str(folder))
                freed -= bytes_of(folder)
        return freed

    def waste(self) -> list[Waste]:
        """What is not active: other versions, and downloads that nobody is at."""
        found = [
            self._waste(record, folder) for record in self.records() for folder in self._inactive(record)
        ]
        for folder in self._folders():
            if not (folder / RECORD).exists():
                found.append(Waste(folder, "what is left of a deleted model", bytes_of(folder)))
        for path in sorted(self._incoming.glob("*")) if self._incoming.is_dir() else ():
            # Locks are asked, too: those that killed processes have left go by that.
            if not is_busy(path) and path.suffix != ".lock":
                with suppress(FileNotFoundError):  # a download has just finished
                    found.append(Waste(path, "an unfinished download", bytes_of(path)))
        return found

    def prune(self) -> list[Waste]:
        """Delete what is not active; returns it. There is nothing to roll back to then.

        Raises `OSError` for what the system keeps, once all else is deleted.
        """
        with self.locked():
            wasted = self.waste()
            # First, so that being killed while deleting leaves no record of what is gone.
            for record in self.records():
                self._save(msgspec.structs.replace(record, previous=None, failures={}))
            return _deleted(wasted)

    @contextmanager
    def keeping(self, name: str, version_id: str) -> Iterator[None]:
        """`prune` leaves this version alone meanwhile, in whatever process, though it is not active yet."""
        make_private(self._incoming)
        # A lock of its own for each pull that wants it: whoever ends first takes it from nobody else.
        keeper = self._incoming / f"{_keepers(name, version_id)}{secrets.token_hex(4)}.version"
        with alone_at(keeper, lambda: None):
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the store meanwhile, in this process or another."""
        from filelock import FileLock

        with FileLock(make_private(self.root) / "store.lock", mode=0o600):
            yield

    # --- inside ---

    def _folder(self, name: str) -> Path:
        return self._models / folder_name(name)

    def _folders(self) -> list[Path]:
        try:
            return sorted(self._models.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _version(self, name: str, version_id: str) -> Version | None:
        return next((one for one in self.versions(name) if one.id == version_id), None)

    def _stored(self, record: Record) -> Stored | None:
        if record.active is None or (version := self._version(record.name, record.active)) is None:
            return None
        try:
            return Stored(record.name, self.path(record.name, version), record, version)
        except (BadRequest, OSError) as exc:
            log.warning("a pulled model is not used", model=record.name, reason=str(exc))
            return None

    def _has_all(self, name: str, version: Version) -> bool:
        """Its files are all there, in the store and of the right size."""
        try:
            self.path(name, version)
        except BadRequest:
            return False
        folder = self._folder(name) / version.id
        return all(_is_whole(folder / file.path, file) for file in version.files)

    def _put_together(self, folder: Path, version: Version) -> Version:
        """Make the folder of a version, in place of one that is damaged; returns it as `_fill` does."""
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        new, place = staging / "new", folder / version.id
        try:
            version, moves = self._fill(make_private(new), version)
            private_file.write(new / MANIFEST, encode(version), is_lasting=True)
            if os.path.lexists(place):
                moves[place] = staging / "old"
            with moved(moves):
                new.rename(place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return version

    def _fill(self, staging: Path, version: Version) -> tuple[Version, dict[Path, Path]]:
        """Put the version's files there. Raises `PullFailed` if one is gone.

        Returns the version with their sizes, and what remains to be moved, which is what has arrived where
        the file system has no links.
        """
        moves: dict[Path, Path] = {}
        files = []
        for file in version.files:
            target = staging / check_path(file.path)
            make_private(target.parent)
            if (found := self.find(file)) is None:
                raise PullFailed(f"{file.path} was removed while the rest was downloaded; pull it again")
            files.append(msgspec.structs.replace(file, size=found.stat().st_size))
            if not is_linked(found, target):
                if found.parent == self._incoming and found not in moves:
                    moves[found] = target
                else:
                    shutil.copyfile(found, target)
                    target.chmod(0o600)
        return msgspec.structs.replace(version, files=tuple(files)), moves

    def _inactive(self, record: Record) -> list[Path]:
        folder = self._folder(record.name)
        others = [path for path in folder.iterdir() if path.is_dir() and path.name != record.active]
        return sorted(path for path in others if not self._is_kept(record.name, path.name))

    def _is_kept(self, name: str, version_id: str) -> bool:
        locks = self._incoming.glob("*.lock") if self._incoming.is_dir() else ()
        return any(is_busy(lock) for lock in locks if lock.name.startswith(_keepers(name, version_id)))

    def _waste(self, record: Record, folder: Path) -> Waste:
        return Waste(folder, f"{record.name}, version {folder.name}", bytes_of(folder))

    def _save(self, record: Record) -> None:
        private_file.write(self._folder(record.name) / RECORD, encode(record), is_lasting=True)


def short_name(name: str) -> str:
    """What people call it: without the owner of its repository, and without saying that it is a GGUF. All of
    it, if that leaves nothing."""
    repo, colon, label = name.partition(":")  # a label may be a path, too
    return re.sub(r"[-_.]gguf$", "", repo.rpartition("/")[2], flags=re.IGNORECASE) + colon + label or name


def _versions(folder: Path) -> list[Version]:
    """Those in the folder of a model, oldest first."""
    found = [_read(file, Version) for file in folder.glob(f"[!.]*/{MANIFEST}")]
    safe = [version for version in found if version is not None and _is_safe(version)]
    return sorted(safe, key=lambda version: version.pulled)


def _keepers(name: str, version_id: str) -> str:
    """How the names of the locks begin that pulls have while they want the version."""
    return f"{folder_name(name)}-{version_id}-"


def _deleted(wasted: list[Waste]) -> list[Waste]:
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


def _is_of(record: Record, folder: Path) -> bool:
    """It is where a model of its name belongs."""
    is_there = _is_folder_of(record.name, folder)
    if not is_there:
        log.warning("a folder of the store is not its model's and is left out", path=str(folder))
    return is_there


def _is_folder_of(name: str, folder: Path) -> bool:
    try:
        return folder_name(name) == folder.name
    except BadRequest:
        return False


def _is_safe(version: Version) -> bool:
    """None of its paths leads out of its folder."""
    try:
        for path in (version.id, *(file.path for file in version.files), version.entry or version.id):
            check_path(path)
    except BadRequest as exc:
        log.warning("a version in the store is left out", version=version.id[:40], reason=exc.message)
        return False
    return True


def _is_whole(path: Path, file: File) -> bool:
    """A file of this size, and no link to one, is there."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size


def _read(path: Path, kind: type[T]) -> T | None:
    """As `_known`; None also for what cannot be read just now, which is logged, too."""
    try:
        return _known(path, kind)
    except OSError as exc:
        log.warning(LEFT_OUT, path=str(path), error=str(exc))
        return None


def _known(path: Path, kind: type[T]) -> T | None:
    """None for what is not there, and for what is damaged, which is logged. Raises `OSError`."""
    try:
        value: T = decode(path.read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as exc:
        log.warning(LEFT_OUT, path=str(path), error=str(exc))
        return None
    return value
