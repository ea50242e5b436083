"""What the presets and rules say of machines as people know them."""

from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from pilotlight.core import RequestClass
from pilotlight.policy.actions import NONE, Actions, Admit
from pilotlight.policy.decide import Cause, Decision, decide
from pilotlight.policy.facts import Facts
from pilotlight.policy.hysteresis import Hysteresis, InForce
from pilotlight.policy.limits import Threads
from pilotlight.policy.settings import Preset, RuleSettings, rules_of
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level

EMPTY = Reading(supply=Supply.BATTERY, percent=14.0)

CHAT = Facts(model="qwen3-8b", small="qwen3-1b")

BACKGROUND = Facts(RequestClass.BACKGROUND)


def judged(
    reading: Reading, facts: Facts = CHAT, preset: Preset = "balanced", *own: dict[str, Any]
) -> Decision:
    rules = tuple(RuleSettings.model_validate({"name": f"own {i}"} | rule) for i, rule in enumerate(own))
    return decide(reading, rules_of(preset, rules), facts)


def test_at_14_percent_the_small_model_answers() -> None:
    """And the sentence says so."""
    decision = judged(EMPTY)
    assert (decision.actions.is_small, decision.actions.max_tokens) == (True, 256)
    assert decision.rules == ("on battery", "half battery", "low battery")
    assert decision.reason == (
        "on battery at 14 %: qwen3-1b answers instead of qwen3-8b, at most 256 tokens, without reasoning, "
        "no more threads than pay; plug in, or send X-Policy-Override: 1"
    )


def test_a_strict_client_is_refused_instead() -> None:
    """But not if nothing would change for it."""
    decision = judged(EMPTY, replace(CHAT, is_strict=True))
    assert (decision.actions.admit, decision.cause) == (Admit.REJECT, Cause.BATTERY)
    reading = replace(EMPTY, percent=40.0)
    assert judged(reading, Facts(is_strict=True, max_tokens=2000)).cause is Cause.BATTERY
    assert judged(reading, Facts(is_strict=True, max_tokens=1024)).actions.admit is Admit.NOW


def test_a_refusal_is_told_by_the_rules_that_refuse() -> None:
    """Others that restrict something just now are no reason for it."""
    hot = Reading(thermal=ThermalLevel.CRITICAL, memory=Level.WARN)
    for facts in (CHAT, BACKGROUND):
        decision = judged(hot, facts)
        assert decision.rules == ("critical heat", "short memory")
        assert decision.cause is Cause.THERMAL
        assert decision.reason.startswith("the machine is too hot: ")
        assert decision.reason.endswith("; let it cool down")


def test_what_strictness_refuses_is_told_by_what_would_be_less() -> None:
    """And not by what only has to wait."""
    waits = {"when": {"memory": "warn"}, "background": {"admit": "defer"}}
    less = {"when": {"supply": "battery"}, "background": {"max_tokens": 100}}
    reading = Reading(supply=Supply.BATTERY, percent=14.0, memory=Level.WARN)
    decision = judged(reading, replace(BACKGROUND, is_strict=True), "always", waits, less)
    assert decision.rules == ("own 0", "own 1")
    assert decision.reason.startswith("on battery at 14 %: refused, because with X-Policy: strict nothing")


def test_what_a_rule_refuses_is_not_refused_for_being_strict() -> None:
    """It would be without that, too, and nothing less would be done."""
    hot = replace(EMPTY, thermal=ThermalLevel.CRITICAL)
    assert judged(hot, replace(CHAT, is_strict=True)).reason == judged(hot).reason
    assert judged(hot).reason == "the machine is too hot: requests are refused; let it cool down"


def test_a_model_without_a_small_one_answers_itself() -> None:
    """What remains of the rule counts."""
    actions = judged(EMPTY, replace(CHAT, small=None)).actions
    assert (actions.is_small, actions.max_tokens) == (False, 256)


def test_background_work_waits_on_battery_and_is_refused_when_it_is_low() -> None:
    """Nothing drains the battery behind anybody's back."""
    assert judged(replace(EMPTY, percent=90.0), BACKGROUND).actions.admit is Admit.DEFER
    assert judged(EMPTY, BACKGROUND).cause is Cause.BACKGROUND


def test_nothing_is_restricted_on_mains_in_the_cool() -> None:
    """For no class, by no preset, whatever the charge."""
    fine = Reading(
        supply=Supply.AC, percent=14.0, is_saving=False, headroom=0.3, thermal=ThermalLevel.NOMINAL,
        memory=Level.NONE, user_idle_s=3600.0, load=0.2, minute=720,
    )  # fmt: skip
    presets: tuple[Preset, ...] = ("always", "balanced", "quiet", "battery", "server", "off")
    for preset in presets:
        for request_class in RequestClass:
            assert judged(fine, Facts(request_class), preset).actions == NONE


def test_only_critical_is_above_an_override() -> None:
    """Heat and memory; the sentence does not offer what is no way out."""
    assert judged(EMPTY, replace(CHAT, is_overridden=True)).actions == NONE
    hot = judged(replace(EMPTY, thermal=ThermalLevel.CRITICAL), replace(CHAT, is_overridden=True))
    assert (hot.actions.admit, hot.cause) == (Admit.REJECT, Cause.THERMAL)
    assert hot.reason == "the machine is too hot: requests are refused; let it cool down"


def test_what_can_wait_is_refused_when_memory_is_critically_short() -> None:
    """If it were paused instead, it would keep its model, and memory short."""
    for request_class in (RequestClass.BACKGROUND, RequestClass.BATCH):
        for preset in ("always", "balanced", "quiet", "battery", "server"):
            decision = judged(Reading(memory=Level.CRITICAL), Facts(request_class), preset)
            assert (decision.actions.admit, decision.cause) == (Admit.REJECT, Cause.MEMORY)


def test_a_rule_of_ones_own_adds_to_the_preset() -> None:
    """The tightest value of each field counts."""
    own = {"when": {"supply": "battery"}, "interactive": {"max_tokens": 300, "context": 2048}}
    actions = judged(EMPTY, CHAT, "balanced", own).actions
    assert (actions.max_tokens, actions.context) == (256, 2048)
    assert judged(EMPTY, CHAT, "off", own).actions == NONE


def test_a_rule_limits_threads() -> None:
    """Where they can be changed; the answer is the same one, so a strict client gets it, too."""
    own = {"when": {"supply": "battery"}, "interactive": {"threads": "50%"}}
    more = {"when": {"supply": "battery"}, "any": {"threads": 2}}
    reading = replace(EMPTY, percent=90.0)
    for facts in (Facts(), Facts(is_strict=True)):
        decision = judged(reading, facts, "always", own, more)
        assert decision.actions == Actions(threads=Threads(2, 0.5))
        assert dict(decision.actions.words()) == {"threads": "2, 50%"}
        assert decision.reason.startswith(
            "on battery at 90 %: at most 2 threads, at most 50 % of the threads; plug in"
        )
    assert judged(reading, Facts(has_live_threads=False), "always", own, more).actions == NONE


@pytest.mark.parametrize(("percent", "is_limited"), [(90.0, False), (14.0, True)])
def test_threads_are_those_of_the_model_that_answers(percent: float, is_limited: bool) -> None:
    """The small one may have another runtime."""
    facts = replace(CHAT, has_live_threads=False)
    reading = replace(EMPTY, percent=percent)
    assert judged(reading, facts).actions.threads.is_efficient == is_limited
    other = replace(CHAT, small_has_live_threads=False)
    assert judged(reading, other).actions.threads.is_efficient != is_limited


def test_plain_text_has_no_reasoning_to_be_switched_off() -> None:
    """So it is neither told that, nor does it keep a strict client from its answer."""
    saving = Reading(is_saving=True)
    assert judged(saving).actions.is_reasoning_off
    assert judged(saving, replace(CHAT, is_strict=True)).actions.admit is Admit.REJECT
    strict = judged(saving, replace(CHAT, is_strict=True, is_chat=False))
    assert (strict.actions.admit, strict.actions.is_reasoning_off) == (Admit.NOW, False)


@pytest.mark.parametrize(("threads", "left"), [(3, 3), (16, 8), (0.5, 4), ("75%", 6), ("1%", 1)])
def test_threads_are_a_number_or_a_part(threads: Any, left: int) -> None:
    """Of the eight that this model has."""
    own = {"when": {}, "interactive": {"threads": threads}}
    assert judged(Reading(), Facts(), "always", own).actions.threads.of(8) == left


def test_no_more_threads_than_are_enough() -> None:
    """For an answer that runs alone; as long as nobody knows how many that are, it limits nothing."""
    own = {"when": {}, "interactive": {"threads": "efficient"}}
    actions = judged(Reading(), Facts(), "always", own).actions
    assert dict(actions.words()) == {"threads": "efficient"}
    assert (actions.threads.alone(8, 5), actions.threads.alone(8, 0), actions.threads.of(8)) == (5, 8, 8)


@pytest.mark.parametrize("threads", [0, -1, 1025, True, 0.0, 1.0, 1.5, "0%", "100%", "all", "2", [2]])
def test_other_threads_are_refused(threads: Any) -> None:
    """With what may be there."""
    with pytest.raises(ValidationError, match="must be a number of threads"):
        RuleSettings.model_validate({"name": "a", "when": {}, "any": {"threads": threads}})


@pytest.mark.parametrize("duration", ["soon", "5 m", True, -1, "-1m"])
def test_a_rule_s_durations_have_an_end(duration: Any) -> None:
    """What would be right is no model's `keep_alive`: it is not for good."""
    with pytest.raises(ValidationError, match="seconds \\(30\\) or a duration") as raised:
        RuleSettings.model_validate({"name": "a", "when": {"active_within": duration}})
    assert "never" not in str(raised.value)


@pytest.mark.parametrize(
    ("when", "reading", "words"),
    [
        ({"between": "22:00-07:00"}, Reading(minute=1380), "it is 23:00: requests are refused; wait until"),
        ({"load_above": 0.5}, Reading(load=0.63), "other programs use 63 % of the processors"),
        ({"active_within": "5m"}, Reading(user_idle_s=10.0), "somebody is using the machine"),
        ({"saver": True}, Reading(is_saving=True), "power saving is on: requests are refused; switch"),
        ({"supply": "ac-weak"}, Reading(supply=Supply.WEAK), "requests are refused; use a stronger"),
        ({"battery_below": 30}, Reading(supply=Supply.AC, percent=20.0), "the battery is at 20 %"),
        ({"forecast_above": 0.9}, Reading(forecast=0.95, headroom=0.5, celsius=71.2), "is warm (71 degrees"),
        ({"memory": "warn"}, Reading(memory=Level.CRITICAL), "memory is very short"),
        ({}, Reading(), "requests are refused"),
    ],
)  # fmt: skip
def test_every_condition_has_words(when: dict[str, Any], reading: Reading, words: str) -> None:
    """What is so, and what would end it."""
    decision = judged(reading, Facts(), "always", {"when": when, "interactive": {"admit": "reject"}})
    assert words in decision.reason


def test_a_rule_holds_until_what_it_waits_for() -> None:
    """`until` asks for more than the end of `when`."""
    rule = {"name": "hot", "when": {"thermal": "serious"}, "until": {"thermal_below": 0.7}}
    (hot,) = [
        one
        for one in rules_of("always", (RuleSettings.model_validate(rule | {"batch": {"admit": "reject"}}),))
        if one.name == "hot"
    ]
    temperatures = [(0.0, 0.95, True), (60.0, 0.75, True), (120.0, 0.75, True), (180.0, 0.65, False)]
    in_force = InForce()
    for at, headroom, holds in temperatures:
        level = ThermalLevel.SERIOUS if headroom > 0.9 else ThermalLevel.NOMINAL
        reading = Reading(at=at, headroom=headroom, thermal=level)
        in_force = in_force.step([hot], reading, Hysteresis())
        assert ("hot" in in_force.since) == holds


def test_a_machine_that_works_where_it_throttles_is_not_refused_for_long() -> None:
    """Once what was critical is over, though it never cools down."""
    rules, in_force = rules_of("balanced", ()), InForce()
    for at, level, headroom in ((0.0, ThermalLevel.CRITICAL, 1.2), (1.0, ThermalLevel.SERIOUS, 1.0)):
        in_force = in_force.step(rules, Reading(at=at, thermal=level, headroom=headroom), Hysteresis())
        assert "critical heat" in in_force.since
    still = Reading(at=40.0, thermal=ThermalLevel.SERIOUS, headroom=1.0)
    assert "critical heat" not in in_force.step(rules, still, Hysteresis()).since


def test_a_plug_that_is_put_back_changes_nothing() -> None:
    """Within `enter_after`; critical heat does not wait."""
    rules = rules_of("balanced", ())
    in_force = InForce()
    for at, supply in ((0.0, Supply.AC), (1.0, Supply.BATTERY), (2.0, Supply.AC), (3.0, Supply.BATTERY)):
        in_force = in_force.step(rules, Reading(at=at, supply=supply), Hysteresis())
        assert not in_force.since
    hot = Reading(at=3.1, supply=Supply.AC, thermal=ThermalLevel.CRITICAL)
    assert "critical heat" in in_force.step(rules, hot, Hysteresis()).since
