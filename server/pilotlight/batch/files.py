"""Uploaded files and what batches wrote: contents under their ids, with a record beside each.

A content without a record is no file yet: an upload that was broken off, or the answers of a batch that still
runs. Knows nothing of what is in them.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from anyio import to_thread

from pilotlight.batch.records import File, Records, deleting, new_id
from pilotlight.errors import Busy, Conflict, DiskFull, NotFound

KEEP_S = 30 * 86400
"""How long a file is kept that says nothing else; OpenAI's, for batches."""


MAX_UPLOADS = 32
"""At the same time: each has a descriptor besides its connection's for as long as its client likes."""


class Files:
    """Owns the folder. `in_use` names the files that must stay; expired ones go whenever somebody looks."""

    def __init__(self, folder: Path, in_use: Callable[[], set[str]]) -> None:
        self._folder = folder
        self._records = Records(folder, File)
        self._in_use = in_use
        self._num_uploads = 0

    def load(self) -> None:
        """Blocking."""
        self._records.load()

    def drop_leftovers(self) -> None:
        """Blocking. Delete the contents that nothing leads to. A record that cannot be read is one, too."""
        in_use = self._in_use()
        for path in self._folder.iterdir():
            has_record = path.with_name(f"{path.name}.json").exists()
            if path.suffix != ".json" and path.name not in in_use and not has_record:
                with deleting(path.name):
                    path.unlink()

    async def all(self) -> list[File]:
        """Oldest first."""
        await self.expire()
        return list(self._records)

    async def get(self, file_id: str) -> File:
        """Raises `NotFound`."""
        await self.expire()
        if (file := self._records.get(file_id)) is None:
            raise NotFound(f"there is no file {file_id[:80]!r}", param="file_id")
        return file

    def path(self, file_id: str) -> Path:
        """Where the content is, of an id that is ours."""
        return self._folder / file_id

    @contextmanager
    def incoming(self) -> "Iterator[Incoming]":
        """Room for an upload. Raises `DiskFull`, and `Busy` where there are too many already."""
        if self._num_uploads >= MAX_UPLOADS:
            raise Busy(
                f"{MAX_UPLOADS} files are being uploaded, and no more at the same time; try again later"
            )
        self._num_uploads += 1
        try:
            with Incoming(self._folder) as incoming:
                yield incoming
        finally:
            self._num_uploads -= 1

    async def keep(self, upload: "Incoming", name: str, purpose: str, keep_s: int) -> File:
        """Make a file of what was uploaded. Raises `DiskFull`."""
        now = time.time()
        file = File(upload.id, name, purpose, upload.size, now, now + keep_s)
        await upload.sync()
        with storing("the upload"):
            await self._records.put(file)
        upload.is_kept = True
        return file

    async def publish(self, file_id: str, name: str, keep_s: int) -> None:
        """Make a file of what a batch wrote, now whole. Raises `OSError`."""
        now, size = time.time(), self.path(file_id).stat().st_size
        await self._records.put(File(file_id, name, "batch_output", size, now, now + keep_s))

    async def remove(self, file_id: str) -> None:
        """Raises `NotFound`, and `Conflict` while a batch needs it or if the system keeps it."""
        await self.get(file_id)
        if file_id in self._in_use():
            raise Conflict(f"{file_id} is the input of a batch that is not over; cancel the batch first")
        with dropping(file_id):
            await self.discard(file_id)

    async def discard(self, file_id: str) -> None:
        """Delete what there is of it, also of one that is no file yet. Raises `OSError`; it stays then."""
        await self._records.remove(file_id)
        with deleting(file_id):
            await to_thread.run_sync(self.path(file_id).unlink, True)

    async def expire(self) -> None:
        """Delete what is over age, as far as the system lets us."""
        now, in_use = time.time(), self._in_use()
        for file in self._records:
            if file.expires_at < now and file.id not in in_use:
                with deleting(file.id):
                    await self.discard(file.id)


class Incoming:
    """A content on its way to the disk. It is deleted when the block ends, unless it became a file."""

    def __init__(self, folder: Path) -> None:
        self.id = new_id("file-")
        self.size = 0
        self.is_kept = False
        self._path = folder / self.id
        with storing("the upload"):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "wb")

    async def write(self, data: bytes) -> None:
        """Raises `DiskFull`."""
        with storing("the upload"):
            await to_thread.run_sync(self._file.write, data)
        self.size += len(data)

    async def sync(self) -> None:
        """On the disk when this returns. Raises `DiskFull`."""
        with storing("the upload"):
            await to_thread.run_sync(self._flush)

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What is buffered may not fit: it is thrown away with the rest.
        with suppress(OSError):
            self._file.close()
        if not self.is_kept:
            with deleting(self.id):
                self._path.unlink(missing_ok=True)


@contextmanager
def storing(what: str) -> Iterator[None]:
    """The system's refusals to write, as `DiskFull`."""
    try:
        yield
    except OSError as exc:
        raise DiskFull(f"{what} cannot be written: {exc.strerror}; nothing of it is kept") from exc


@contextmanager
def dropping(name: str) -> Iterator[None]:
    """The system's refusals to delete, as `Conflict`."""
    try:
        yield
    except OSError as exc:
        raise Conflict(f"{name} cannot be deleted: {exc.strerror}; it is still there") from exc
