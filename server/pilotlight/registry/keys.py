"""Keys: what one looks like, and the admin key, a file in the state directory that its owner alone can read.

It is made once, so that programs may keep it; whoever deletes the file gets a new one at the next start.
"""

import errno
import os
import re
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from pilotlight.registry import private_file

SHORTEST, LONGEST = 16, 512

_KEY = re.compile(rf"[!-+\--~]{{{SHORTEST},{LONGEST}}}")

_BYTES = 32

log = structlog.get_logger()


def is_key(text: str) -> bool:
    """Long enough not to be guessed, and fit for a header and for a list with commas."""
    return _KEY.fullmatch(text) is not None


def admin_file(state_dir: Path) -> Path:
    return state_dir / "admin.key"


def ensure_admin_key(state_dir: Path) -> str:
    """The key in the file; one that is missing, damaged or open to others is made anew.

    Raises `OSError`, also where another user keeps theirs: a daemon of theirs may run with it.
    """
    file = admin_file(state_dir)
    if (known := read(file)) is not None:
        return known
    with suppress(FileNotFoundError):
        found = file.lstat()
        if _is_private(found) and not _is_ours(found) and found.st_uid != _owner_in(state_dir):
            whose = f"its {file.name} is of user {found.st_uid}, whose daemon may run with it"
            instead = "start as that user, choose another folder with --state-dir, or delete the file"
            raise PermissionError(errno.EACCES, f"{whose}; {instead}")
        log.warning("the admin key was damaged or open to others; there is a new one", path=str(file))
    key = secrets.token_urlsafe(_BYTES)
    private_file.write(file, f"{key}\n".encode())
    return key


def read(file: Path) -> str | None:
    """The key in it, if it is a plain file that nobody but us can have read or written."""
    try:
        # A link, or a pipe that would block, is not what we wrote.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(file, os.O_RDONLY | flags), encoding="ascii") as opened:
            text = opened.read(LONGEST + 2).strip() if _is_ours(os.fstat(opened.fileno())) else ""
    except (OSError, ValueError):
        return None
    return text if is_key(text) else None


def _is_ours(found: os.stat_result) -> bool:
    if sys.platform == "win32":  # the user's profile is nobody else's there
        return stat.S_ISREG(found.st_mode)
    return _is_private(found) and found.st_uid == os.geteuid()


def _owner_in(folder: Path) -> int:
    """Whose the files are that we make there: some mounts show one user's for everybody's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_uid


def _is_private(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077
