"""Trying again: what is worth it, how long to wait, and when to give up."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from pilotlight.errors import PullFailed
from pilotlight.store.events import Waiting

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be gone in a moment."""

NUM_TRIES = 6
"""In a row, without a single new byte."""

LONGEST_WAIT_S = 300.0
"""If a server wants more, the person is told instead."""

T = TypeVar("T")


class Interrupted(Exception):
    """It did not work this time; `wait_s` is what the server said to wait, if it did."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Patience(Struct, frozen=True):
    """How long to put up with a bad network."""

    stall_s: float
    """Silence after which a connection counts as lost."""
    retry_s: float
    """The wait before the second try; it doubles with each."""
    report: Callable[[Waiting], None]


def persist(attempt: Callable[[], T], size: Callable[[], int], patience: Patience) -> T:
    """What `attempt` returns, however often it is `Interrupted`, as long as `size` grows now and then.

    Raises `PullFailed` after `NUM_TRIES` without progress, or if the server asks for too much patience.
    """
    num_failures, most = 0, size()
    while True:
        try:
            return attempt()
        except Interrupted as exc:
            # Against the most there ever was: what begins anew again and again must come to an end.
            num_failures = 1 if size() > most else num_failures + 1
            most = max(most, size())
            wait_s = patience.retry_s * 2 ** (num_failures - 1) if exc.wait_s is None else exc.wait_s
            if num_failures >= NUM_TRIES:
                raise PullFailed(f"{exc}; given up after {NUM_TRIES} tries, what has come is kept") from exc
            if wait_s > LONGEST_WAIT_S:
                raise PullFailed(f"{exc} and asks to wait {wait_s:.0f} s; what has come is kept") from exc
            patience.report(Waiting(str(exc), wait_s))
            time.sleep(wait_s)


def wait_of(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header; None without one, or if it is a date that cannot be read."""
    value = headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
