"""What holds for all rules and all readings."""

import math
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ACTIONS, FACTS, VALUES, readings, rules, unknown, worse
from msgspec.structs import replace

from pilotlight.core import RequestClass
from pilotlight.policy.actions import NONE, Actions
from pilotlight.policy.conditions import BEGINS_AT, BatteryBelow, HeadroomAbove, ThermalIs
from pilotlight.policy.decide import decide
from pilotlight.policy.facts import Facts
from pilotlight.policy.hysteresis import Hysteresis, InForce
from pilotlight.policy.rules import Rule
from pilotlight.policy.settings import Preset, rules_of
from pilotlight.power.reading import Reading, ThermalLevel

HYSTERESIS = Hysteresis()

PRESETS: list[Preset] = ["always", "balanced", "quiet", "battery", "server", "off"]


@given(ACTIONS, ACTIONS, ACTIONS)
def test_actions_are_a_lattice(a: Actions, b: Actions, c: Actions) -> None:
    """Joining them is commutative, associative and idempotent, and only ever tightens."""
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a | a == a == a | NONE
    assert (a | b).restricts(a) and (a | b).restricts(b)


@given(ACTIONS, ACTIONS, st.integers(1, 64), st.integers(0, 64))
def test_more_limits_never_give_more_threads(a: Actions, b: Actions, own: int, enough: int) -> None:
    """And there is always one; an answer that runs alone gets no more than a prompt."""
    both, one = (a | b).threads, a.threads
    assert 1 <= both.of(own) <= one.of(own) <= own
    assert 1 <= both.alone(own, enough) <= one.alone(own, enough) <= one.of(own)


@given(rules(), readings(), FACTS, st.randoms())
def test_the_order_of_rules_does_not_matter(
    rules: tuple[Rule, ...], reading: Reading, facts: Facts, random: Random
) -> None:
    """The tightest value counts, whoever says it."""
    shuffled = random.sample(rules, len(rules))
    assert decide(reading, shuffled, facts).actions == decide(reading, rules, facts).actions


@given(st.data(), readings(), FACTS)
def test_a_worse_reading_never_loosens_anything(data: st.DataObject, reading: Reading, facts: Facts) -> None:
    """Also when a sensor begins to say something."""
    given = data.draw(rules())
    bad = decide(data.draw(worse(reading)), given, facts)
    assert bad.actions.restricts(decide(reading, given, facts).actions)


@given(rules(), readings(), FACTS, st.sets(st.sampled_from([*VALUES, "minute"])))
def test_what_is_unknown_never_restricts(
    rules: tuple[Rule, ...], reading: Reading, facts: Facts, names: set[str]
) -> None:
    """A sensor that goes blind loosens, if it does anything."""
    known = decide(reading, rules, facts).actions
    assert known.restricts(decide(unknown(reading, names), rules, facts).actions)


@given(FACTS, st.sampled_from(PRESETS))
def test_a_machine_of_which_nothing_is_known_is_not_restricted(facts: Facts, preset: Preset) -> None:
    """By no preset."""
    assert decide(Reading(), rules_of(preset, ()), facts).actions == NONE


@settings(max_examples=50)
@given(st.data(), st.lists(readings(), min_size=1, max_size=8), st.sampled_from(PRESETS))
def test_presets_are_monotone_over_time_too(
    data: st.DataObject, readings: list[Reading], preset: Preset
) -> None:
    """Of two machines one is worse at every moment: whatever rule holds for the other, holds for it."""
    given, good, bad, at = rules_of(preset, ()), InForce(), InForce(), 0.0
    for reading in readings:
        at += data.draw(st.sampled_from([1.0, 20.0]))
        good = good.step(given, replace(reading, at=at), HYSTERESIS)
        bad = bad.step(given, replace(data.draw(worse(reading)), at=at), HYSTERESIS)
        assert good.since.keys() <= bad.since.keys()


LEVELS = BEGINS_AT | {ThermalLevel.CRITICAL: 1.1}
"""Of a sensor whose machine switches itself off 6 degrees above where it throttles."""

GAPS = st.lists(st.floats(0.1, 3600), min_size=2, max_size=60)


@given(st.integers(1, 95), st.lists(st.booleans(), min_size=60, max_size=60), GAPS)
def test_noise_of_one_percent_is_no_transition(bound: int, is_above: list[bool], gaps: list[float]) -> None:
    """Around any threshold of the battery, at any pace: the rule begins at most once."""
    rule = Rule("low", (BatteryBelow(bound),), {})
    assert _transitions(rule, [Reading(percent=bound - 1 + up) for up in is_above], gaps) <= 1


@given(
    st.sampled_from([HeadroomAbove(0.75), *map(ThermalIs, LEVELS)]),
    st.lists(st.booleans(), min_size=60, max_size=60),
    GAPS,
)
def test_noise_of_one_degree_is_no_transition(
    condition: HeadroomAbove | ThermalIs, is_above: list[bool], gaps: list[float]
) -> None:
    """30 degrees are a headroom of 1; the level follows the headroom."""
    bound = condition.headroom if isinstance(condition, HeadroomAbove) else LEVELS[condition.least]
    values = [bound + (1 / 60 if up else -1 / 60) for up in is_above]
    readings = [Reading(headroom=value, thermal=_level(value)) for value in values]
    assert _transitions(Rule("hot", (condition,), {}), readings, gaps) <= 1


def _level(headroom: float) -> ThermalLevel:
    return max((level for level, begin in LEVELS.items() if headroom >= begin), default=ThermalLevel(0))


def _transitions(rule: Rule, readings: list[Reading], gaps: list[float]) -> int:
    in_force, count, at = InForce().step([rule], replace(readings[0], at=0.0), HYSTERESIS), 0, 0.0
    for reading, gap in zip(readings[1:], gaps, strict=False):
        at += gap
        after = in_force.step([rule], replace(reading, at=at), HYSTERESIS)
        count += after.since.keys() != in_force.since.keys()
        in_force = after
    return count


@given(rules(fewest_conditions=1), readings())
def test_a_rule_ends_once_nothing_speaks_for_it(rules: tuple[Rule, ...], bad: Reading) -> None:
    """`leave_after` later, and not sooner."""
    in_force = InForce().step(rules, replace(bad, at=0.0), HYSTERESIS)
    began = in_force.since.keys()
    for second in (1.0, HYSTERESIS.leave_after - 1):
        in_force = in_force.step(rules, Reading(at=second), HYSTERESIS)
        assert in_force.since.keys() == began
    assert not in_force.step(rules, Reading(at=HYSTERESIS.leave_after), HYSTERESIS).since


@given(st.sampled_from(PRESETS), readings())
def test_every_deferral_of_a_preset_has_a_deadline(preset: Preset, reading: Reading) -> None:
    """Whatever the machine is like."""
    for request_class in RequestClass:
        actions = decide(reading, rules_of(preset, ()), Facts(request_class)).actions
        assert actions.admit.word != "defer" or math.isfinite(actions.max_wait_s or math.inf)


def test_every_field_of_actions_is_drawn() -> None:
    """A new one must be part of these tests."""
    assert set(Actions.__struct_fields__) == {
        "admit", "max_wait_s", "is_small", "is_reasoning_off", "max_tokens", "context", "is_eco",
        "concurrency", "keep_alive_s", "threads",
    }  # fmt: skip
