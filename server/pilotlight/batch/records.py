"""What is known of files and batches, and the folder that keeps it: one small JSON file per record.

Times are Unix seconds. Knows nothing of what is in the files.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import msgspec
import structlog
from anyio import to_thread

from pilotlight.registry import private_file

LONGEST_MESSAGE = 500
"""Characters of what is told of a fault: it may repeat a stranger's file, and is kept for weeks."""

log = structlog.get_logger()


class State(StrEnum):
    """The life of a batch, by OpenAI's names."""

    VALIDATING = "validating"
    FAILED = "failed"
    """Its file was refused, and nothing ran; or it could not go on, and what is answered is kept."""
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    """Its time was over before its last line; the lines answered until then are kept."""
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in (State.FAILED, State.COMPLETED, State.EXPIRED, State.CANCELLED)


class File(msgspec.Struct, frozen=True):
    """An uploaded file, or what a batch wrote."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float


class Fault(msgspec.Struct, frozen=True):
    """Why a batch was refused: what is wrong, and in which line of its file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "message", self.message[:LONGEST_MESSAGE])


class Counts(msgspec.Struct, frozen=True):
    """Lines: all, those answered, and those that were an error."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def are_whole(self) -> bool:
        """Every line was run."""
        return self.completed + self.failed == self.total


class Usage(msgspec.Struct, frozen=True):
    """Tokens of all lines answered so far."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it stands. The files it writes are named from the begin, and shown once they are whole."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: float
    expires_at: float
    output_keep_s: Annotated[int, msgspec.Meta(ge=0, le=2**40)]
    """How long its files are kept once they are whole. A number without end is no time."""
    metadata: dict[str, str] | None = None
    status: State = State.VALIDATING
    model: str | None = None
    """If all lines ask the same one."""
    faults: tuple[Fault, ...] = ()
    counts: Counts = Counts()
    usage: Usage = Usage()
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None

    @property
    def kept_until(self) -> float:
        """When one that is over is forgotten: what it wrote has been kept for long enough after its end."""
        ends = (self.completed_at, self.failed_at, self.expired_at, self.cancelled_at)
        return max([self.expires_at, *(at for at in ends if at is not None)]) + self.output_keep_s

    def moved(self, status: State, now: float) -> "Batch":
        """In another state since now; each state but the first has a time of its name."""
        return msgspec.structs.replace(self, status=status, **{f"{status.value}_at": now})


R = TypeVar("R", File, Batch)

_ID = re.compile(r"(file-|batch_)[0-9a-f]{24}")


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


class Records(Generic[R]):
    """Owns a folder of records, read once by `load`; the ids of strangers never reach the disk."""

    def __init__(self, folder: Path, kind: type[R]) -> None:
        self.folder = folder
        self._kind: type[R] = kind
        self._known: dict[str, R] = {}
        self.is_whole = True
        """Whether nothing was left out."""

    def __iter__(self) -> Iterator[R]:
        """Oldest first."""
        return iter(sorted(self._known.values(), key=lambda record: record.created_at))

    def get(self, record_id: str) -> R | None:
        return self._known.get(record_id)

    def load(self) -> None:
        """Blocking. Makes the folder; what is damaged is left out and logged."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for file in self.folder.glob("*.json"):
            try:
                record = msgspec.json.decode(file.read_bytes(), type=self._kind)
            except (OSError, ValueError, RecursionError) as exc:
                log.warning("a record cannot be read and is left out", path=str(file), error=str(exc))
                self.is_whole = False
                continue
            if record.id == file.stem and _ID.fullmatch(record.id):
                self._known[record.id] = record
        for torn in self.folder.glob(".new-*"):
            with deleting(torn.name):
                torn.unlink()

    async def put(self, record: R) -> None:
        """On the disk when this returns. Raises `OSError`; the old record stands then."""
        content = msgspec.json.encode(record)
        await to_thread.run_sync(self._write, record.id, content)
        self._known[record.id] = record

    async def remove(self, record_id: str) -> None:
        """Nothing to do if it is gone already. Raises `OSError`; it stays then."""
        await to_thread.run_sync(self._file(record_id).unlink, True)
        self._known.pop(record_id, None)

    def _write(self, record_id: str, content: bytes) -> None:
        private_file.write(self._file(record_id), content, is_lasting=True)
        try:
            private_file.sync(self.folder)
        except OSError as exc:
            # It is there already; whoever was told that it is not would send it again.
            log.warning("a record may not outlast a power cut", id=record_id, error=str(exc))

    def _file(self, record_id: str) -> Path:
        return self.folder / f"{record_id}.json"


@contextmanager
def deleting(name: str) -> Iterator[None]:
    """What nobody needs any more, but the system keeps, is logged and stays until the next start."""
    try:
        yield
    except OSError as exc:
        log.warning("what nobody needs any more cannot be deleted", name=name, error=str(exc))
