"""How a batch goes from state to state, and what its files are called. Knows no disk."""

import hashlib
import time
from typing import TypeGuard

import structlog
from msgspec.structs import replace

from pilotlight.batch.lines import Bad
from pilotlight.batch.records import Batch, Fault, State
from pilotlight.errors import Conflict
from pilotlight.log import bug

KINDS = ("output", "error")

log = structlog.get_logger()


def outputs(batch_id: str) -> tuple[str, str]:
    """The ids of its answers and of its errors: the same after every start."""
    output, errors = (hashlib.sha256(f"{batch_id} {kind}".encode()).hexdigest()[:24] for kind in KINDS)
    return f"file-{output}", f"file-{errors}"


def cause(error: BaseException) -> BaseException:
    """The first of those that came together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def passes(error: BaseException) -> TypeGuard[OSError]:
    """A disk, a server or the system could not just now. A file that is gone stays so."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def fault_of(batch: Batch, error: BaseException) -> Fault:
    """Why it cannot go on; a bug of ours is in the log, without messages: they may hold a prompt."""
    if isinstance(error, OSError | Bad):
        return Fault("input_unreadable", f"the input file cannot be read any more: {error}")
    log.error("batch failed by a bug of ours", batch=batch.id, **bug(error))
    return Fault("internal_error", "the server failed on this batch; its log has the details")


def cancelled(batch: Batch) -> Batch:
    """Raises `Conflict` if there is nothing left to cancel."""
    if batch.status is State.CANCELLING:
        return batch
    if batch.status.is_over or batch.status is State.FINALIZING:
        raise Conflict(f"{batch.id} cannot be cancelled: it is {batch.status.value}")
    return batch.moved(State.CANCELLING, time.time())


def finalizing(batch: Batch) -> Batch:
    """All its lines have run; one that is cancelled stays so."""
    return batch.moved(State.FINALIZING, time.time()) if batch.status is State.IN_PROGRESS else batch


def ended(batch: Batch, faults: tuple[Fault, ...]) -> Batch:
    """Its answers are files; with faults it could not go on. One that is cancelled stays so, and one
    whose answers the disk has lost, too late to make them again, has expired."""
    if batch.status is State.CANCELLING:
        return batch.moved(State.CANCELLED, time.time())
    if faults:
        return replace(batch.moved(State.FAILED, time.time()), faults=faults)
    is_complete = batch.status is State.FINALIZING and batch.counts.are_whole
    return batch.moved(State.COMPLETED if is_complete else State.EXPIRED, time.time())
