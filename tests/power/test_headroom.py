"""Headroom is Android's: its golden values, and the straight line that the forecast follows."""

import pytest

from pilotlight.power.headroom import NUM_SAMPLES, Trend, headroom, level
from pilotlight.power.reading import ThermalLevel


@pytest.mark.parametrize(
    ("celsius", "value"), [(15, 0.0), (10, 0.0), (30, 0.5), (42, 0.9), (45, 1.0), (48, 1.1)]
)
def test_headroom_is_that_of_android(celsius: float, value: float) -> None:
    """With severe throttling at 45 degrees, as in AOSP's own tests."""
    assert headroom(celsius, 45) == pytest.approx(value)


@pytest.mark.parametrize(
    ("value", "name"),
    [(0.74, "NOMINAL"), (0.75, "FAIR"), (0.9, "SERIOUS"), (0.999, "SERIOUS"), (1.0, "CRITICAL")],
)
def test_levels_are_bands_of_headroom(value: float, name: str) -> None:
    """Each begins at its number."""
    assert level(value) is ThermalLevel[name]


def test_the_forecast_is_that_of_android() -> None:
    """Ten samples from 30 to 34.5 degrees in nine seconds: 39.5 degrees in ten more."""
    trend = Trend()
    for second in range(10):
        trend.add(second, 30 + second * 0.5)
    ahead = trend.forecast(10)
    assert ahead is not None
    assert headroom(ahead, 45) == pytest.approx(0.8167, abs=1e-4)


def test_samples_may_be_irregular() -> None:
    """A second or two apart, the line is the same."""
    trend = Trend()
    for at in (0.0, 1.0, 2.9, 4.1, 6.1, 7.0):
        trend.add(at, 50 + at * 0.25)
    assert trend.forecast(30) == pytest.approx(50 + 37 * 0.25)


def test_two_samples_are_no_trend() -> None:
    """And the same moment twice is one sample."""
    trend = Trend()
    for at in (0.0, 1.0, 1.0):
        trend.add(at, 50 + at)
    assert trend.slope() is None
    assert trend.forecast(30) is None


def test_only_the_last_samples_count() -> None:
    """An old rise is forgotten once a ring of level ones has come."""
    trend = Trend()
    for second in range(20 + NUM_SAMPLES):
        trend.add(second, min(second, 20))
    assert trend.forecast(30) == pytest.approx(20)


def test_a_pause_ends_the_trend() -> None:
    """What it did before nobody looked says nothing of where it goes."""
    trend = Trend()
    for at in (0, 1, 2, 60):
        trend.add(at, 50 + at)
    assert trend.slope() is None
