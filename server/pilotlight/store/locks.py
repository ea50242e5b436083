"""Who is at a file of the store, in any process: locks beside it that end with who has them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

log = structlog.get_logger()


@contextmanager
def alone_at(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Nobody else is at this path meanwhile, in any process; `on_wait` is called if somebody is.

    It may be entered in one thread and left in another.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(".lock"), mode=0o600, thread_local=False)
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
    """Somebody is at this path; maybe so, if we may not ask (another user's lock), which is logged."""
    try:
        with alone_at(path, give_up):
            return False
    except BlockingIOError:
        return True
    except OSError as exc:
        log.warning("a lock of the store cannot be taken", path=str(path), error=str(exc))
        return True


def give_up() -> None:
    """Rather than wait."""
    raise BlockingIOError
