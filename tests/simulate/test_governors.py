"""Each governor throttles as its own do."""

import pytest

from pilotlight.simulate.governors import Cliff, PowerAllocator, StepWise, Trip

TRIP = Trip(80.0, floor=0.5)


def test_step_wise_goes_up_and_down_one_state_at_a_time() -> None:
    """Above the trip while it rises, below it while it falls; else it stays."""
    governor = StepWise(TRIP, num_states=5)
    limits = [governor.limit(celsius, load=1.0) for celsius in (79, 81, 82, 82, 81, 79, 79, 78)]
    assert limits == pytest.approx([1.0, 0.9, 0.8, 0.8, 0.8, 0.9, 0.9, 1.0])


def test_step_wise_has_a_floor() -> None:
    """However hot it becomes."""
    governor = StepWise(TRIP, num_states=5)
    assert min(governor.limit(80.0 + second, load=1.0) for second in range(50)) == 0.5


def allocator(sustainable: float, floor: float = 0.5) -> PowerAllocator:
    """Of a chip that draws 10 W at the highest clock."""
    trip = Trip(80.0, floor)
    return PowerAllocator(trip, sustainable, most=10.0, clock=lambda watts: watts / 10, num_states=50)


def test_power_allocator_grants_the_sustainable_power_at_the_trip() -> None:
    """And three times as much where it begins, 10 degrees below."""
    governor = allocator(3.0)
    assert governor.limit(69.0, load=1.0) == 1.0
    assert governor.limit(70.0, load=1.0) == pytest.approx(0.9)
    assert governor.limit(80.0, load=1.0) == 0.5
    assert allocator(6.0).limit(80.0, load=1.0) == pytest.approx(0.6)


def test_power_allocator_limits_nothing_while_all_that_could_be_drawn_is_granted() -> None:
    """So it throttles from a temperature on that no trip names; later if few cores are busy."""
    governor = allocator(6.0)
    limits = [governor.limit(celsius, load=1.0) for celsius in (72.0, 76.6, 76.8, 78.0)]
    assert limits == pytest.approx([1.0, 1.0, 0.98, 0.84])
    assert governor.limit(78.0, load=0.75) == 1.0
    assert governor.limit(80.0, load=0.0) == 1.0


def test_power_allocator_takes_back_what_turned_out_too_much() -> None:
    """Its integral part, above the trip, which it keeps until it switches off."""
    governor = allocator(6.0, floor=0.0)
    limits = [governor.limit(80.5, load=1.0) for _ in range(30)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] < limits[0]
    assert governor.limit(78.0, load=1.0) < 0.8
    assert governor.limit(69.0, load=1.0) == 1.0
    assert governor.limit(78.0, load=1.0) == pytest.approx(0.84)


def test_a_cliff_gives_no_warning_and_forgives_slowly() -> None:
    """The lowest clock at once, for its time and until it has cooled."""
    governor = Cliff(TRIP, below=4.0, hold=3)
    assert [governor.limit(celsius, load=1.0) for celsius in (79.9, 80.0, 79.0, 70.0)] == [1.0, 0.5, 0.5, 0.5]
    assert governor.limit(77.0, load=1.0) == 0.5
    assert governor.limit(75.9, load=1.0) == 1.0
