"""Linux: what the system's services say over D-Bus: whether the person is away, and the chosen power mode.

By jeepney, if it is installed: pure Python, without an event loop of its own. Services that do not run are
not started for this. Nothing is subscribed to, so nothing wakes us between two questions.
"""

import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pilotlight.power.files import Remembered
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence

LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
PROFILES = (
    (
        "org.freedesktop.UPower.PowerProfiles",
        "/org/freedesktop/UPower/PowerProfiles",
        "org.freedesktop.UPower.PowerProfiles",
    ),
    ("net.hadess.PowerProfiles", "/net/hadess/PowerProfiles", "net.hadess.PowerProfiles"),
)
"""The same service by its present name and the one before; tuned and TLP answer to them, too."""

SAVER = "power-saver"

APPLICATION = "pilotlight"
"""What we are called where others see who holds a profile."""

HOT = "high-operating-temperature"
"""Whenever turbo is switched off, which heat may be the reason for, or somebody's wish."""

REPLY_S = 0.1

FAILURES = (OSError, ValueError, RuntimeError, struct.error)
"""No bus, no answer in time, no access, or an answer that is none."""


class Desktop:
    """Owns the connection; asks every `files.AGAIN_S`, as power modes and absence last."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._answers = Remembered(self._ask)
        self._saving: tuple[Known, ...] = ()
        """By the last answer there was: a bus that is slow has changed no mode, and the firmware's profile,
        which would be believed else, does not tell who wants it."""

    def read(self, now: float) -> Iterator[Finding]:
        """Idle time of the person, power saver and throttling."""
        answers = self._answers.at(now)
        if answers is None:
            yield Missing("user_idle_s", "there is no system bus, or jeepney is not installed")
            yield from self._saving
            return
        manager, profiles = answers
        yield _idle(manager)
        self._saving = tuple(_saving(profiles))
        yield from self._saving
        if self._saving:
            is_hot = profiles.get("PerformanceDegraded") == HOT
            yield Known("is_throttled", is_hot, "power-profiles", Confidence.GUESSED)

    def _ask(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        try:
            if self._connection is None:
                self._connection = connect()
            return self._properties(LOGIND), self._profiles()
        except ImportError:
            return None
        except FAILURES:
            self.close()
            return None

    def _profiles(self) -> dict[str, Any]:
        return next((found for service in PROFILES if (found := self._properties(service))), {})

    def _properties(self, service: tuple[str, str, str]) -> dict[str, Any]:
        """Of an object of a service; none if it does not run. Raises one of `FAILURES`."""
        from jeepney import DBusAddress, MessageFlag, MessageType, Properties

        name, path, interface = service
        question = Properties(DBusAddress(path, bus_name=name, interface=interface)).get_all()
        question.header.flags |= MessageFlag.no_auto_start
        reply = self._connection.send_and_get_reply(question)
        if reply.header.message_type is not MessageType.method_return:
            return {}
        return {key: value for key, (_, value) in reply.body[0].items()}

    def close(self) -> None:
        """End the connection; the next question makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _idle(manager: Mapping[str, Any]) -> Finding:
    """How long the person has been away, at least: a desktop gives the hint after a delay that it tells
    nobody. Until then, and once the hint is taken back, it is 0. A terminal's is by its last key."""
    is_away, since = manager.get("IdleHint"), manager.get("IdleSinceHintMonotonic")
    if not (isinstance(since, int) and since > 0):
        # Many desktops never tell logind that somebody is away: this does not say that somebody is there.
        return Missing("user_idle_s", "logind was told of nobody who is away")
    if is_away is True:
        return Known("user_idle_s", max(0.0, time.monotonic() - since / 1e6), "logind")
    if is_away is False and "idle" not in str(manager.get("BlockInhibited")).split(":"):
        return Known("user_idle_s", 0.0, "logind")
    # Whatever it is that keeps the machine awake, it needs nobody there; newer versions date this, too.
    return Missing("user_idle_s", "something keeps logind from saying that somebody is away")


def _saving(profiles: Mapping[str, Any]) -> Iterator[Known]:
    """Whether somebody wants power saved, if that is known."""
    mode = profiles.get("ActiveProfile")
    if isinstance(mode, str) and mode:
        is_wanted = mode == SAVER and not _is_ours(profiles.get("ActiveProfileHolds"))
        yield Known("is_saving", is_wanted, "power-profiles")


def _is_ours(holds: Any) -> bool:
    """The power saver is on because we hold it (`power.saver`), and nobody else does."""
    if not isinstance(holds, list) or not all(isinstance(hold, dict) for hold in holds):
        return False
    savers = [hold for hold in holds if hold.get("Profile") == ("s", SAVER)]
    return bool(savers) and all(hold.get("ApplicationId") == ("s", APPLICATION) for hold in savers)


def connect() -> Any:
    """To the system's bus. Raises `ImportError` without the library, or one of `FAILURES`."""
    from jeepney.bus import get_bus
    from jeepney.io.blocking import DBusConnection, prep_socket

    class Connection(DBusConnection):  # type: ignore[misc]  # untyped
        """No question waits for ever, the first one of the library's own included."""

        def send_and_get_reply(self, message: Any, *, timeout: float | None = None) -> Any:
            return super().send_and_get_reply(message, timeout=REPLY_S if timeout is None else timeout)

    return Connection(prep_socket(get_bus("SYSTEM"), timeout=REPLY_S))
