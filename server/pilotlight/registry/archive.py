"""The settings of the archive: where conversations of unloaded models lie, and how much for how long.

Knows nothing of what is in it.
"""

from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from pilotlight.core import Archive
from pilotlight.registry import keep_alive
from pilotlight.registry.budget import Amount
from pilotlight.runtimes.archive import folder

OFF = ("0", "off")

TIDY_EVERY_S = 6 * 3600.0
"""Of a machine that is awake. Seldom enough that an idle daemon still costs nothing."""

log = structlog.get_logger()


def parse_bytes(text: str) -> int:
    """0 for none at all. Raises `ValueError`."""
    if text.strip().lower() in OFF:
        return 0
    try:
        num_bytes = Amount.parse(text).bytes
    except ValueError:
        num_bytes = None
    if num_bytes is None:
        raise ValueError('must be bytes of disk ("2GiB", "500MB"), or 0 for none')
    return num_bytes


def archive_of(state_dir: Path, most: str, age: str) -> Archive | None:
    """Of so many bytes for so long, as they are written in the settings; None if nothing is to be kept."""
    max_bytes, max_age_s = parse_bytes(most), keep_alive.seconds(age)
    return Archive(str(state_dir / folder.NAME), max_bytes, max_age_s) if max_bytes else None


async def keep_tidy(state_dir: Path, archive: Archive | None) -> None:
    """Tidy now and, as long as there may be something to get too old, every few hours."""
    await to_thread.run_sync(tidy, state_dir, archive)
    while archive is not None:
        await anyio.sleep(TIDY_EVERY_S)
        await to_thread.run_sync(tidy, state_dir, archive)


def tidy(state_dir: Path, archive: Archive | None) -> None:
    """Delete what is too old or too much; everything, if there is to be no archive. Blocks on the disk."""
    try:
        if archive is None:
            folder.clear(state_dir / folder.NAME)
        else:
            folder.prune(archive)
    except OSError as exc:
        log.warning("old conversations cannot be deleted", path=str(state_dir / folder.NAME), error=str(exc))
