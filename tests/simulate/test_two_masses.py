"""Heat flows as the two equations say."""

import pytest

from pilotlight.simulate.body import Body, Heat

BODY = Body(die=3, chassis=36, inner=2.0, outer=8.0, air=20.0)


def test_it_settles_where_the_resistances_say() -> None:
    """5 W through 8 K/W to the chassis and 2 K/W more to the die."""
    heat = Heat(BODY, dt=1.0, watts=0.0)
    for _ in range(5000):
        heat.step(5.0)
    assert (heat.chassis, heat.die) == (pytest.approx(60.0), pytest.approx(70.0))


@pytest.mark.parametrize("dt", [0.25, 10.0])
def test_a_step_is_exact_whatever_its_length(dt: float) -> None:
    """As many small steps of Euler's method."""
    heat = Heat(BODY, dt=dt, watts=1.0)
    die, chassis = heat.die, heat.chassis
    small = 20_000
    for _ in range(small):
        through = (die - chassis) / BODY.inner
        die += (7.0 - through) / BODY.die * dt / small
        chassis += (through - (chassis - BODY.air) / BODY.outer) / BODY.chassis * dt / small
    heat.step(7.0)
    assert (heat.die, heat.chassis) == (pytest.approx(die, abs=2e-3), pytest.approx(chassis, abs=2e-3))


def test_the_die_follows_at_once_and_the_chassis_slowly() -> None:
    """Within 9 s, three quarters of what the die rises above the chassis are there."""
    heat = Heat(BODY, dt=1.0, watts=0.0)
    for _ in range(9):
        heat.step(5.0)
    assert heat.die - heat.chassis > 7.3
    assert heat.chassis - BODY.air < 2.0
