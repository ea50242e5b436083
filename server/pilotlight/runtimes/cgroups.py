"""Where the kernel tells what of the machine we may use: the control groups we are in, of both versions.

Knows no controller's files.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

MOUNT = "sys/fs/cgroup"
"""Of the second version; the first has a folder for each controller in there."""


def folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Those of a controller, each with its version, innermost first; a container may see only the outermost
    as its root."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            version, mount = (1, f"{MOUNT}/{controller}") if controllers else (2, MOUNT)
            inner = PurePosixPath(path)
            for group in (inner, *inner.parents):
                yield version, root / mount / group.relative_to("/")
