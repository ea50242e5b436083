"""What clocks follow, and when they can be relied on."""

from typing import Any

import pytest

from pilotlight.power.clocks import Clock, Clocks
from pilotlight.power.reading import Reading, Supply, ThermalLevel


@pytest.mark.parametrize(
    ("known", "clock"),
    [
        ({}, Clock.MAINS),
        ({"supply": Supply.WEAK}, Clock.MAINS),
        ({"supply": Supply.BATTERY}, Clock.BATTERY),
        ({"supply": Supply.BATTERY, "is_saving": True}, Clock.SAVING),
        ({"supply": Supply.AC, "is_saving": True}, Clock.SAVING),
    ],
)
def test_clocks_follow_power(known: dict[str, Any], clock: Clock) -> None:
    """Unknown is mains."""
    assert Clocks(lambda: Reading(**known)).now is clock


@pytest.mark.parametrize(
    ("known", "are_steady"),
    [
        ({}, True),
        ({"load": 0.05, "thermal": ThermalLevel.FAIR}, True),
        ({"load": 0.5}, False),
        ({"thermal": ThermalLevel.SERIOUS}, False),
        ({"is_throttled": True}, False),
        ({"is_throttled": True, "headroom": 0.3}, True),
        ({"is_throttled": True, "headroom": 0.6}, False),
    ],
)
def test_neither_heat_nor_others_may_take_part_of_them(known: dict[str, Any], are_steady: bool) -> None:
    """As far as that is known."""
    assert Clocks(lambda: Reading(**known)).are_steady is are_steady


def test_clocks_that_we_have_low_ourselves_are_not_steady() -> None:
    """Nobody else does, so they are taken for higher ones."""
    assert not Clocks(Reading, lambda: True).are_steady
