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
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from pilotlight.errors import BadRequest, ModelNotFound, NoRollback, PullFailed
from pilotlight.registry import private_file
from pilotlight.store.disk import bytes_of, is_linked, make_private, moved
from pilotlight.store.keepers import Keepers
from pilotlight.store.locks import is_busy
from pilotlight.store.manifest import File, Record, Version, encode
from pilotlight.store.paths import check_path, folder_name
from pilotlight.store.reading import MANIFEST, RECORD, read, read_or_raise, versions_of
from pilotlight.store.waste import Waste, deleted, is_left_over, looking_at

log = structlog.get_logger()


class Stored(Struct, frozen=True):
    """A model with an active version; `path` is what a runtime loads."""

    name: str
    path: Path
    record: Record
    version: Version


class Store:
    """Owns one store folder. Several processes may use it: changes take its lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._models = root / "models"
        self._incoming = root / "incoming"
        self._keepers = Keepers(self._incoming)

    # --- looking ---

    def models(self) -> list[Stored]:
        """Every model that can be loaded, by name. What is damaged is left out and logged.

        Raises `OSError` where we may not look.
        """
        found = [self._stored(record) for record in self.records()]
        return [stored for stored in found if stored is not None]

    def records(self) -> list[Record]:
        """Every model, also those without an active version."""
        found = [(folder, read(folder / RECORD, Record)) for folder in self._folders()]
        return [record for folder, record in found if record is not None and _is_of(record, folder)]

    def record(self, name: str) -> Record:
        """The model of this name, or else the one of this short name. Raises `ModelNotFound`, and
        `BadRequest` if several have it."""
        records = self.records()
        found = [record for record in records if record.name == name]
        found = found or [record for record in records if short_name(record.name) == name]
        if len(found) > 1:
            names = ", ".join(record.name for record in found)
            raise BadRequest(f"{name[:200]!r} may be any of {names}: say which", param="model")
        if not found:
            known = ", ".join(record.name for record in records) or "none"
            raise ModelNotFound(f"no pulled model is named {name[:200]!r}; there is: {known}", param="model")
        return found[0]

    def name_of(self, name: str) -> str:
        """The name of the model that `record` finds, or of one whose record cannot be read, which has to be
        named in full. Raises `ModelNotFound`, and `BadRequest` if it may be several."""
        try:
            return self.record(name).name
        except ModelNotFound:
            folders = [folder for folder in self._folders() if _is_folder_of(name, folder)]
            if any(os.path.lexists(folder / RECORD) for folder in folders):
                return name
            raise

    def versions(self, name: str) -> list[Version]:
        """Oldest first, active or not."""
        return versions_of(self._folder(name))

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
            for version in versions_of(folder):
                for other in version.files:
                    path = folder / version.id / other.path
                    if other.digest == file.digest and _is_whole(path, other):
                        return path
        return None

    def check_free(self, name: str) -> None:
        """Raises `BadRequest` if another model has the folder of this one: to the file systems of macOS and
        Windows `A` and `a` are the same."""
        record = read(self._folder(name) / RECORD, Record)
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
            if read_or_raise(folder / RECORD, Record) is None:
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
        found: list[Waste] = []
        for record in self.records():
            with looking_at(self._folder(record.name)):
                found += [self._waste(record, folder) for folder in self._inactive(record)]
        for folder in self._folders():
            with looking_at(folder):
                if is_left_over(folder):
                    found.append(Waste(folder, "what is left of a deleted model", bytes_of(folder)))
        for path in sorted(self._incoming.glob("*")) if self._incoming.is_dir() else ():
            # Locks are asked, too: those that killed processes have left go by that.
            if not is_busy(path) and path.suffix != ".lock":
                with looking_at(path), suppress(FileNotFoundError):  # a download has just finished
                    found.append(Waste(path, "an unfinished download", bytes_of(path)))
        return found

    def prune(self) -> list[Waste]:
        """Delete what is not active; returns it. There is nothing to roll back to then.

        Raises `OSError` for what the system keeps, once all else is deleted.
        """
        with self.locked():
            try:
                return deleted(self.waste())
            finally:
                # Last, as a full disk has no room for them before. Whoever is killed in between, or cannot
                # write them, leaves records of what is gone: `rollback` looks.
                self._forget_inactive()

    def keeping(self, name: str, version_id: str) -> AbstractContextManager[None]:
        """`prune` leaves this version alone meanwhile, see `Keepers`."""
        return self._keepers.keeping(name, version_id)

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
        return sorted(path for path in others if not self._keepers.is_kept(record.name, path.name))

    def _waste(self, record: Record, folder: Path) -> Waste:
        return Waste(folder, f"{record.name}, version {folder.name}", bytes_of(folder))

    def _forget_inactive(self) -> None:
        for record in self.records():
            pruned = msgspec.structs.replace(record, previous=None, failures={})
            if pruned != record:
                try:
                    self._save(pruned)
                except OSError as exc:
                    log.warning("a record still names what is pruned", model=record.name, error=str(exc))

    def _save(self, record: Record) -> None:
        private_file.write(self._folder(record.name) / RECORD, encode(record), is_lasting=True)


def short_name(name: str) -> str:
    """What people call it: without the owner of its repository, and without saying that it is a GGUF. All of
    it, if that leaves nothing."""
    repo, colon, label = name.partition(":")  # a label may be a path, too
    return re.sub(r"[-_.]gguf$", "", repo.rpartition("/")[2], flags=re.IGNORECASE) + colon + label or name


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


def _is_whole(path: Path, file: File) -> bool:
    """A file of this size, and no link to one, is there."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size
