"""Linux: holds the desktop's power saver while nothing but background work runs, which then has low clocks.

Over D-Bus, by jeepney if it is installed (`org.freedesktop.UPower.PowerProfiles`, method HoldProfile). The
service ends a hold whose owner is gone from the bus, so to release it is to close a connection, which waits
for nobody. A user who chooses a profile ends all holds; then this one is not taken again until there was
other work.
"""

import math
import sys
from enum import Enum, auto
from typing import Any

import anyio
import structlog
from anyio import to_thread

from pilotlight.power import desktop

REASON = "background work on battery"

REPLY_S = 2.0
"""The service asks others whether we may."""


class Wish(Enum):
    """What runs, as far as it matters here."""

    HOLD = auto()
    """Nothing but background work that is to run on low clocks."""
    REST = auto()
    """Nothing at all."""
    RELEASE = auto()
    """Something else."""


DELAYS = {Wish.HOLD: 2.0, Wish.REST: 5.0, Wish.RELEASE: 0.0}
"""Seconds that a wish has to stand before it is fulfilled: clocks do not change between two requests."""

BY_PRIORITY = ("darwin", "win32")
"""Systems that lower the clocks of a process for its `Priority.ECO`."""

log = structlog.get_logger()


class Saver:
    """Owns the connection that the hold hangs on. All methods are called in the event loop."""

    def __init__(self, platform: str = sys.platform) -> None:
        self._saves_by_priority = platform in BY_PRIORITY
        self._connection: Any = None
        self._wish = Wish.RELEASE
        self._changed = anyio.Event()

    @property
    def is_held(self) -> bool:
        """As far as we know."""
        return self._connection is not None

    @property
    def is_slowing(self) -> bool:
        """We keep clocks low: by what is held, or by what workers are to the system (`worker.priority`).

        That it is wanted lowers nothing by itself: it may be refused, or there may be nobody to ask.
        """
        return self.is_held or (self._saves_by_priority and self._wish is Wish.HOLD)

    def wish(self, wish: Wish) -> None:
        """From now on; a release is done when this returns."""
        was, self._wish = self._wish, wish
        # Else nothing is held and nothing is to be: so with nearly every answer, and not worth waking up for.
        matters = self.is_held or Wish.HOLD in (was, wish)
        if wish is Wish.RELEASE:
            self._release()
        if matters and wish is not was:
            self._changed.set()

    async def run(self) -> None:
        """Take and release, until cancelled."""
        try:
            while True:
                await self._fulfil()
        finally:
            self._release()

    async def _fulfil(self) -> None:
        """The wish of now, once it has stood for long enough; returns when there is another one."""
        wish, self._changed = self._wish, anyio.Event()
        is_done = (wish is Wish.HOLD) is self.is_held
        with anyio.move_on_after(math.inf if is_done else DELAYS[wish]):
            await self._changed.wait()
            return
        if wish is Wish.HOLD:
            await self._take()
        else:
            self._release()
        if not self._changed.is_set():
            await self._changed.wait()

    async def _take(self) -> None:
        connection = await to_thread.run_sync(_held)
        if self._wish is Wish.RELEASE and connection is not None:
            connection.close()
        elif connection is not None:
            self._connection = connection
            log.info("power saver held", reason=REASON)

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            log.info("power saver released")


def _held() -> Any:
    """A connection with a hold; None where there is no such service, or it does not let us. Blocks."""
    try:
        connection = desktop.connect()
    except (ImportError, *desktop.FAILURES):
        return None
    try:
        if any(_is_granted(connection, service) for service in desktop.PROFILES):
            return connection
    except desktop.FAILURES as exc:
        log.info("power saver not held", reason=repr(exc))
    connection.close()
    return None


def _is_granted(connection: Any, service: tuple[str, str, str]) -> bool:
    from jeepney import DBusAddress, MessageFlag, MessageType, new_method_call

    name, path, interface = service
    address = DBusAddress(path, bus_name=name, interface=interface)
    question = new_method_call(address, "HoldProfile", "sss", (desktop.SAVER, REASON, desktop.APPLICATION))
    question.header.flags |= MessageFlag.no_auto_start
    reply = connection.send_and_get_reply(question, timeout=REPLY_S)
    return bool(reply.header.message_type is MessageType.method_return)
