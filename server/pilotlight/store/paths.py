"""Names from strangers (a repository, a URL, a client) on their way to becoming files.

Pure, and the same on every system: what Windows would take for a drive or a device is refused on Linux, too.
"""

import re
from pathlib import PurePosixPath
from urllib.parse import quote

from pilotlight.errors import BadRequest

LONGEST = 200
"""Characters in one step of a path: file systems take 255 bytes."""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_path(path: str) -> str:
    """The relative path of a file in a model's folder. Raises `BadRequest` for one that leads out of it."""
    steps = path.split("/")
    if reason := next(filter(None, map(_fault, steps)), None):
        raise BadRequest(f"the file name {path[:LONGEST]!r} is refused: {reason}")
    return str(PurePosixPath(*steps))


def folder_name(model: str) -> str:
    """The folder of a model's name. Two names never share one, unless the file system takes big letters for
    small ones (`Store.check_free`). Raises `BadRequest`."""
    name = quote(model, safe="")
    if not model.strip() or (reason := _fault(name)):
        raise BadRequest(
            f"the model name {model[:LONGEST]!r} is refused: {reason if model.strip() else 'it is empty'}"
        )
    return name


def _fault(step: str) -> str | None:
    """What is wrong with one step of a path."""
    if not step:
        return "a part of it is empty, or it is absolute"
    if step.startswith(".") or step.endswith((".", " ")):
        return "a part of it begins or ends with a dot"
    if len(step.encode(errors="replace")) > LONGEST:
        return f"a part of it is longer than {LONGEST} bytes"
    if _FORBIDDEN.search(step):
        return "it has characters that no file name may have"
    return "a part of it names a device" if _DEVICE.fullmatch(step) else None
