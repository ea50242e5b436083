"""The machine in virtual time: real scheduler, sums that agree, a battery that empties."""

import pytest

from pilotlight.core import RequestClass
from pilotlight.policy.settings import rules_of
from pilotlight.simulate.machine import Machine, Scenario
from pilotlight.simulate.platforms import FAN_LAPTOP, PHONE, PI_5
from pilotlight.simulate.policies import Always, Orders, policy
from pilotlight.simulate.record import figures
from pilotlight.simulate.traces import Ask, Trace

SATURATED = Trace((), is_saturated=True)
FULL = Always(Orders())


def scenario(trace: Trace, **values: object) -> Scenario:
    return Scenario(FAN_LAPTOP, FAN_LAPTOP.govern(FAN_LAPTOP.governor), trace, **values)  # type: ignore[arg-type]


def test_an_answer_on_a_cold_machine_comes_at_cold_speed() -> None:
    """Alone, and beside background work that is paused for it."""
    asks = (Ask(5.0, RequestClass.INTERACTIVE, 300),)
    for trace in (Trace(asks), Trace(asks, is_saturated=True)):
        record = Machine(scenario(trace), FULL).run(60)
        assert record.speeds == [pytest.approx(1.0)]
        assert record.waits[0] <= 0.25


def test_background_work_gets_what_answers_leave() -> None:
    """No token is lost, and none is made twice."""
    asks = tuple(Ask(60.0 * n, RequestClass.INTERACTIVE, 110) for n in range(10))
    record = Machine(scenario(Trace(asks, is_saturated=True)), FULL).run(600)
    assert record.tokens - record.background == pytest.approx(1100)
    assert record.tokens == pytest.approx(600 * FAN_LAPTOP.chip.tokens_per_s, rel=0.02)


@pytest.mark.parametrize("duty", [0.1, 0.5, 0.9])
def test_a_duty_is_kept_in_bursts(duty: float) -> None:
    """Within what a step of a quarter second leaves."""
    record = Machine(scenario(SATURATED), Always(Orders(duty))).run(1800)
    assert record.background / 1800 / FAN_LAPTOP.chip.tokens_per_s == pytest.approx(duty, rel=0.1)


def test_a_battery_gives_what_is_in_it() -> None:
    """57 Wh at some 44 W: the run ends when it is empty."""
    record = Machine(scenario(SATURATED, is_on_battery=True), FULL).run(100 * 3600)
    assert record.joules / 3600 == pytest.approx(FAN_LAPTOP.battery, abs=0.01)
    assert 70 < record.seconds / 60 < 90
    assert record.samples[-1].percent is not None


def test_a_hot_machine_is_throttled_and_slow() -> None:
    """The simulation can make a policy lose: a phone that races answers at half its speed."""
    asks = tuple(Ask(600.0 + 180 * n, RequestClass.INTERACTIVE, 300) for n in range(10))
    hot = Scenario(PHONE, PHONE.govern(PHONE.governor), Trace(asks, is_saturated=True))
    found = figures(Machine(hot, FULL).run(2400))
    assert found.mean is not None
    assert found.mean < 0.75
    assert found.throttled > 0.5


def test_a_recorded_background_request_ends() -> None:
    """Without an endless queue the machine idles in the end."""
    trace = Trace((Ask(1.0, RequestClass.BATCH, 100), Ask(2.0, RequestClass.BACKGROUND, 100)))
    cold = Scenario(PI_5, PI_5.govern(PI_5.governor), trace)
    record = Machine(cold, FULL).run(120)
    assert record.background == pytest.approx(200)
    assert record.samples[-1].tokens_per_s == 0


def test_what_the_policy_defers_waits_until_it_may() -> None:
    """On battery, with the rules that everybody has; what is interactive does not wait."""
    trace = Trace((Ask(1.0, RequestClass.BATCH, 100), Ask(2.0, RequestClass.INTERACTIVE, 100)))
    rules = rules_of("balanced", ())
    plugged, unplugged = (
        Machine(scenario(trace, is_on_battery=is_on_battery), policy("pilotlight", rules)).run(120)
        for is_on_battery in (False, True)
    )
    assert (plugged.tokens, plugged.background) == (pytest.approx(200), pytest.approx(100))
    assert (unplugged.tokens, unplugged.background) == (pytest.approx(100), 0)
    assert unplugged.samples[-1].queued == 1


def test_of_nothing_there_are_no_figures() -> None:
    """Rather than a division by zero, or a zero that looks like one."""
    found = figures(Machine(scenario(Trace(())), FULL).run(10))
    assert (found.mean, found.p5, found.joules_per_token) == (None, None, None)
    assert found.watts == pytest.approx(FAN_LAPTOP.chip.idle)
