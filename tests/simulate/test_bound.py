"""What is possible at most, against what a policy that knows the machine could do."""

import pytest

from pilotlight.core import RequestClass
from pilotlight.simulate.bound import FULL, most_background
from pilotlight.simulate.machine import Machine, Scenario
from pilotlight.simulate.platforms import FAN_LAPTOP, FANLESS_LAPTOP, PI_5, Platform
from pilotlight.simulate.policies import Always, Orders
from pilotlight.simulate.traces import Ask, Trace


@pytest.mark.parametrize("platform", [FANLESS_LAPTOP, PI_5], ids=lambda one: one.name)
def test_what_is_possible_does_not_throttle_and_more_does(platform: Platform) -> None:
    """With an answer after hours of it; of more, a tenth is enough."""
    possible = most_background(platform, platform.trip.celsius, 0.0, FULL)
    trace = Trace((Ask(9000.0, RequestClass.INTERACTIVE, 150),), is_saturated=True)
    throttled = []
    for part in (0.9, 1.1):
        orders = Orders(part * possible / platform.chip.tokens_per_s)
        scenario = Scenario(platform, platform.govern(platform.governor), trace)
        throttled.append(Machine(scenario, Always(orders)).run(9100).throttled_s)
    assert throttled[0] == 0 < throttled[1]


def test_a_cool_machine_does_all_there_is_time_for() -> None:
    """What answers leave."""
    rate = FAN_LAPTOP.chip.tokens_per_s
    assert most_background(FAN_LAPTOP, 150.0, 0.2, FULL) == pytest.approx(0.8 * rate)


def test_a_machine_that_answers_alone_heat_has_room_for_nothing() -> None:
    """And not for less than that."""
    assert most_background(PI_5, 70.0, 0.9, FULL) == 0.0
