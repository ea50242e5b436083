"""Which reader this platform has, imported when it is needed and no other one."""

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import structlog

from pilotlight.power.files import are_linux
from pilotlight.power.finding import Finding
from pilotlight.power.sampling import Machine

log = structlog.get_logger()


class ThisMachine:
    """The machine we run on; with another root than `/`, the Linux machine whose files are there.

    Its reader is imported at the first look: a daemon that starts has no use for it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reader: Machine | None = None

    def look(self, now: float, pids: Collection[int]) -> Sequence[Finding]:
        """All findings; nothing on a platform that cannot be read."""
        if self._reader is None:
            self._reader = _reader(self._root)
        return self._reader.look(now, pids)

    async def listen(self, tell: Callable[[], None]) -> None:
        """Tell when the machine says that its supply has changed, until cancelled; returns at once where it
        never does."""
        if sys.platform == "linux" and self._root == Path(self._root.anchor):
            from pilotlight.power import uevents

            await uevents.listen(tell)


def _reader(root: Path) -> Machine:
    if are_linux(root):
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
