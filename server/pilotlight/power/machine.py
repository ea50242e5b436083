"""Which reader this platform has. Imports no other one."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog

from pilotlight.power.finding import Finding
from pilotlight.power.sampling import Machine

log = structlog.get_logger()


def machine(root: Path) -> Machine:
    """The reader of this machine; with another root than `/`, of the Linux machine whose files are there."""
    if sys.platform == "linux" or root != Path(root.anchor):
        from pilotlight.power.linux import Linux

        return Linux(root)
    try:
        return _by_calls()
    except (OSError, AttributeError) as exc:
        log.warning("power and heat cannot be read here", reason=str(exc))
        return Unread()


def _by_calls() -> Machine:
    """Raises `OSError` or `AttributeError` where the system's libraries are not as expected."""
    platform: str = sys.platform
    if platform == "darwin":
        from pilotlight.power import macos, macos_calls

        return macos.Mac(macos_calls.SystemCalls())
    if platform == "win32":
        from pilotlight.power import windows, windows_calls

        return windows.Windows(windows_calls.SystemCalls())
    return Unread()


class Unread:
    """A platform that nobody can read."""

    def look(self, now: float, pids: Collection[int]) -> Sequence[Finding]:
        """Nothing."""
        return ()
