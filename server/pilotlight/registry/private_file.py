"""Writes small files of ours: whole or not at all, and nobody else's to read."""

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}
"""What a full disk, an exhausted quota and a limit on the size of files are told as."""

_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""What file systems say (of networks, of other systems) that cannot sync a folder."""


def write(file: Path, content: bytes, *, is_lasting: bool = False) -> None:
    """Readers see the old content or the new, never a part; the file is 0600.

    With `is_lasting` it is on the disk when this returns. Raises `OSError`; nothing is left then.
    """
    write_pieces(file, (content,), is_lasting=is_lasting)


def write_pieces(file: Path, pieces: Iterable[bytes], *, is_lasting: bool = False) -> None:
    """As `write`, of what need not fit into memory. If making the pieces raises, nothing is left either."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".new-")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.writelines(pieces)
            if is_lasting:
                new.flush()
                os.fsync(new.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def sync(folder: Path) -> None:
    """Make the names in a folder last, where the system and the file system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise
        finally:
            os.close(descriptor)
