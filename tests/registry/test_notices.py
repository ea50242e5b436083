"""The list of health remarks."""

from itertools import count

from pilotlight.core import Severity
from pilotlight.notices import Notices


def notices() -> Notices:
    """With a clock that ticks at every look."""
    ticks = count()
    return Notices(clock=lambda: float(next(ticks)))


def test_notices_stand_in_the_order_they_were_raised() -> None:
    """One per code."""
    found = notices()
    for code in ("b", "a", "b"):
        found.raise_(code, Severity.WARNING, "text")
    assert [(notice.code, notice.since) for notice in found] == [("b", 0.0), ("a", 1.0)]


def test_a_notice_that_changes_keeps_its_time() -> None:
    """It stands since it was first raised."""
    found = notices()
    found.raise_("a", Severity.WARNING, "one")
    found.raise_("a", Severity.ERROR, "two")
    (notice,) = found
    assert (notice.severity, notice.text, notice.since) == (Severity.ERROR, "two", 0.0)


def test_a_cleared_notice_is_gone() -> None:
    """One that never stood can be cleared too."""
    found = notices()
    found.raise_("a", Severity.INFO, "text")
    found.clear("a")
    found.clear("a")
    assert list(found) == []
