"""Writes small files of ours: whole or not at all, and nobody else's to read."""

import os
import tempfile
from pathlib import Path


def write(file: Path, content: bytes, *, is_lasting: bool = False) -> None:
    """Readers see the old content or the new, never a part; the file is 0600.

    With `is_lasting` it is on the disk when this returns. Raises `OSError`; nothing is left then.
    """
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".new-")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(content)
            if is_lasting:
                new.flush()
                os.fsync(new.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def sync(folder: Path) -> None:
    """Make the names in a folder last, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
