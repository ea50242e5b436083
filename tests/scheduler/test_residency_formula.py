"""What the choice of who goes is made of."""

import math

import pytest

from pilotlight.scheduler.residency import MAX_TURN_S, MIN_TURN_S, TURN_LOADS, Residency, Resident


def resident(load_s: float = 1.0, idle_s: float = 0.0, num_bytes: int = 100) -> Resident:
    """At the time 1000."""
    ready_at = 900.0
    return Resident("x", num_bytes, False, math.inf, ready_at - load_s, ready_at, idle_since=1000 - idle_s)


def test_the_loss_is_the_return_weighed_by_idle_time_per_byte() -> None:
    """As the formula says."""
    assert resident(load_s=6, idle_s=2, num_bytes=50).loss(1000) == pytest.approx(6 / (1 + 2) / 50)


@pytest.mark.parametrize(
    ("goes", "stays"),
    [
        (resident(idle_s=60), resident(idle_s=30)),
        (resident(load_s=1), resident(load_s=5)),
        (resident(num_bytes=200), resident(num_bytes=100)),
        (resident(load_s=5, idle_s=99), resident(load_s=1, idle_s=9)),
    ],
    ids=["idle longer", "back sooner", "larger", "idle ten times as long outweighs five times the load"],
)
def test_who_goes_first(goes: Resident, stays: Resident) -> None:
    """The one with the smaller loss."""
    assert goes.loss(1000) < stays.loss(1000)


@pytest.mark.parametrize(
    ("load_s", "turn_s"), [(0.01, MIN_TURN_S), (2.0, 2.0 * TURN_LOADS), (100.0, MAX_TURN_S)]
)
def test_a_turn_is_a_few_loads_long_within_bounds(load_s: float, turn_s: float) -> None:
    """So that what a load cost is worth it, and nobody waits forever."""
    assert resident(load_s).turn_ends_at(is_urgent=False) == 900 + turn_s


def test_check_notices_a_model_idle_before_it_is_ready() -> None:
    """Broken on purpose."""
    residency = Residency()
    residency.begin("a", 0.0)
    residency.idle("a", 0.0)
    with pytest.raises(AssertionError, match="a: idle before"):
        residency.check()
