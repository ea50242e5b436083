"""Decoding is limited by memory above the knee, and by arithmetic below."""

import pytest
from msgspec.structs import replace

from pilotlight.simulate.chip import Chip, Setting

CHIP = Chip(tokens_per_s=10, knee=0.5, idle=5, cores=36, memory=4)


def test_a_lower_clock_costs_little_above_the_knee() -> None:
    """And saves a lot."""
    eco = Setting(clock=0.7)
    assert CHIP.rate(eco) > 0.95 * CHIP.rate(Setting())
    assert CHIP.watts(eco) < 0.65 * CHIP.watts(Setting())


def test_below_the_knee_speed_follows_the_clock() -> None:
    """A quarter of the arithmetic is half of what the memory could feed."""
    assert CHIP.rate(Setting(clock=0.25)) == pytest.approx(5.0, rel=0.02)


def test_threads_missing_at_a_low_clock_cost_speed() -> None:
    """Five of eight are enough when cold, and too few when the system has throttled."""
    few = 5 / 8
    assert CHIP.rate(Setting(1.0, few)) > 0.95 * CHIP.rate(Setting(1.0))
    assert CHIP.rate(Setting(0.4, few)) < 0.7 * CHIP.rate(Setting(0.4))


@pytest.mark.parametrize("watts", [10.0, 20.0, 44.0])
def test_the_clock_for_a_power_draws_that_power(watts: float) -> None:
    """What the power allocator asks."""
    assert CHIP.watts(Setting(CHIP.clock(watts))) == pytest.approx(watts, rel=1e-3)


def test_no_clock_draws_less_than_nothing_does() -> None:
    """Idle power is drawn anyway."""
    assert CHIP.clock(4.0) == pytest.approx(0.0, abs=1e-4)


def test_fewer_threads_are_enough_where_the_memory_is_the_limit() -> None:
    """5 of 8; all of them where it is not."""
    assert CHIP.fewest_threads(8) == Setting(threads=5 / 8)
    assert replace(CHIP, knee=1.5).fewest_threads(8) == Setting()
