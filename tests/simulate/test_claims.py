"""What the controller is for: background work does not cost the next answer. A part of what
`pilotlight simulate --vary 30` runs; LOG.md has all of it."""

from collections.abc import Sequence

import pytest

from pilotlight.policy.settings import Preset, rules_of
from pilotlight.simulate.experiment import Plan, Run, runs
from pilotlight.simulate.platforms import FAN_LAPTOP, FANLESS_LAPTOP, PHONE, PI_5, GovernorName, Platform
from pilotlight.simulate.record import Figures


def outcome(
    platform: Platform, policies: Sequence[str], preset: Preset = "balanced", **wishes: object
) -> dict[str, Run]:
    """Of the platform's own machine, by policy."""
    rules = rules_of(preset, ())
    plan = Plan(platforms=[platform], policies=policies, rules=rules, **wishes)  # type: ignore[arg-type]
    return {run.policy: run for run in runs(plan)}


def holds(found: Figures) -> bool:
    """Answers are fast, hardly anything throttles, and nothing flaps."""
    assert found.mean is not None
    assert found.p5 is not None
    is_fast = found.mean >= 0.95 and found.p5 >= 0.90
    return is_fast and found.throttled <= 0.02 and found.transitions_per_h <= 6


@pytest.mark.parametrize("platform", [FAN_LAPTOP, FANLESS_LAPTOP, PI_5], ids=lambda one: one.name)
def test_answers_stay_fast_and_most_background_work_is_done(platform: Platform) -> None:
    """Under a governor that throttles by steps."""
    ours = outcome(platform, ["race", "eco"], hours=2.0)["eco"]
    assert holds(ours.figures)
    assert ours.kept is not None
    assert ours.kept >= 0.60


@pytest.mark.parametrize("platform", [FAN_LAPTOP, FANLESS_LAPTOP, PI_5], ids=lambda one: one.name)
def test_a_governor_that_throttles_below_its_trip_is_learned(platform: Platform) -> None:
    """`power_allocator` does, by up to 9 degrees here; each time that it is met counts."""
    allocator = GovernorName.POWER_ALLOCATOR
    assert holds(outcome(platform, ["pilotlight"], governors=[allocator], hours=1.5)["pilotlight"].figures)


def test_racing_costs_the_next_answer() -> None:
    """Without a fan, a third and more of its speed: the simulation can make a policy lose."""
    found = outcome(FANLESS_LAPTOP, ["race"], hours=2.0)["race"].figures
    assert found.mean is not None
    assert found.mean < 0.7


@pytest.mark.parametrize("seed", [1, 2, 5])
@pytest.mark.parametrize(("platform", "least"), [(FANLESS_LAPTOP, 0.9), (PI_5, 0.65)], ids=["fanless", "pi5"])
def test_a_machine_whose_constants_are_off_is_learned(platform: Platform, least: float, seed: int) -> None:
    """Each constant by up to 30 %. Most of the background work that heat leaves is done; on a hot machine
    that may be less than half of what racing does."""
    ours = outcome(platform.vary(0.3, seed), ["pilotlight"], hours=1.5, seed=seed)["pilotlight"]
    assert holds(ours.figures)
    assert ours.record.background >= least * ours.possible


def test_what_a_new_machine_taught_in_minutes_is_not_believed_for_hours() -> None:
    """This one throttles four times before what its answers add is known: 0.59 once remembered that."""
    ours = outcome(PI_5.vary(0.3, 16), ["race", "pilotlight"], hours=2.0, seed=16)["pilotlight"]
    assert holds(ours.figures)
    assert ours.kept is not None
    assert ours.kept >= 0.60


@pytest.mark.parametrize("platform", [PHONE, FANLESS_LAPTOP], ids=lambda one: one.name)
def test_a_governor_that_falls_off_a_cliff_is_kept_away_from(platform: Platform) -> None:
    """It gives no second chance within an answer."""
    found = outcome(platform, ["pilotlight"], governors=[GovernorName.CLIFF], hours=1.5)["pilotlight"].figures
    assert found.mean is not None
    assert found.mean >= 0.85


def test_without_a_thermometer_our_own_slowdown_is_enough_to_do_better() -> None:
    """Not as well: it has to be slow before it knows."""
    found = outcome(FANLESS_LAPTOP, ["race", "slowdown"], hours=1.5)
    race, blind = found["race"].figures, found["slowdown"].figures
    assert race.mean is not None
    assert blind.mean is not None
    assert blind.mean >= 0.90
    assert race.mean < 0.75


def test_on_battery_background_work_takes_nothing() -> None:
    """By default: it waits, and a charge lasts as long as without it."""
    ours = outcome(FAN_LAPTOP, ["pilotlight"], hours=2.0, is_on_battery=True)["pilotlight"]
    assert ours.figures.background_joules == 0


def test_a_charge_gives_more_tokens_than_racing_does() -> None:
    """Where background work is allowed on battery: by a lower clock 1.4 times, by fewer threads 1.2."""
    found = outcome(FAN_LAPTOP, ["race", "threads", "eco"], "always", hours=10.0, is_on_battery=True)
    for name, least in (("threads", 1.2), ("eco", 1.4)):
        kept = found[name].kept
        assert kept is not None
        assert kept >= least
