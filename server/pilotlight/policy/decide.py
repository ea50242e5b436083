"""`decide`: a reading, the rules and what is known of a request -> what is done with it, and why.

Pure: no clock, no sensor, no log. What is unknown restricts nothing.
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from pilotlight.policy import words
from pilotlight.policy.actions import NONE, Actions, Admit
from pilotlight.policy.facts import Facts
from pilotlight.policy.hysteresis import InForce
from pilotlight.policy.limits import ALL_THREADS
from pilotlight.policy.rules import Rule
from pilotlight.power.reading import Reading


class Cause(StrEnum):
    """What a refusal is about, for programs; the codes of `errors.Restricted`."""

    MEMORY = "memory_pressure"
    THERMAL = "thermal_critical"
    BATTERY = "battery_floor"
    BACKGROUND = "background_blocked"
    RULE = "policy_rule"
    """Something else, that a rule in models.toml names."""


CAUSES = {
    "memory": Cause.MEMORY,
    "thermal": Cause.THERMAL,
    "headroom": Cause.THERMAL,
    "forecast": Cause.THERMAL,
    "supply": Cause.BATTERY,
    "percent": Cause.BATTERY,
    "is_saving": Cause.BATTERY,
}
"""By the field of the reading that a rule is about; the worst one first."""


class Decision(Struct, frozen=True):
    """What is done with a request: `actions`, for which the rules that `fired` are the reason."""

    facts: Facts
    reading: Reading
    actions: Actions = NONE
    fired: tuple[Rule, ...] = ()

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of those that restrict something."""
        return tuple(rule.name for rule in self.fired)

    @property
    def blocking(self) -> tuple[Rule, ...]:
        """Those without which it would not be refused, or else not wait."""
        facts, is_refused = self.facts, self.actions.admit is Admit.REJECT

        def blocks(actions: Actions) -> bool:
            if is_refused:
                return actions.admit is Admit.REJECT or (facts.is_strict and actions.degrades)
            return actions.admit is not Admit.NOW

        return tuple(rule for rule in self.fired if blocks(_restricted(rule, facts)))

    @property
    def refusing(self) -> tuple[Rule, ...]:
        """Those for which it is refused: they say so, or else a strict client does not take what they do."""
        if self.actions.admit is not Admit.REJECT:
            return ()
        restricted = [(rule, _restricted(rule, self.facts)) for rule in self.fired]
        refusing = tuple(rule for rule, actions in restricted if actions.admit is Admit.REJECT)
        return refusing or tuple(rule for rule, actions in restricted if actions.degrades)

    @property
    def reason(self) -> str:
        """A sentence for people; empty if nothing is restricted."""
        rules = self.refusing or self.fired
        return words.sentence(self.reading, rules, self.actions, self.facts) if rules else ""

    @property
    def cause(self) -> Cause | None:
        """Of a refusal."""
        return _cause(self.refusing, self.facts) if self.refusing else None


def decide(
    reading: Reading, rules: Sequence[Rule], facts: Facts, in_force: InForce | None = None
) -> Decision:
    """Of the rules, those in force count (`in_force`); without that, those that the reading alone fulfils."""
    holding = [
        rule for rule in rules if (rule.begins(reading) if in_force is None else rule.name in in_force.since)
    ]
    known = facts
    if any(_restricted(rule, facts).is_small for rule in holding):
        known = replace(facts, has_live_threads=facts.small_has_live_threads)
    fired: list[Rule] = []
    actions = NONE
    for rule in holding:
        if (restricted := _restricted(rule, known)) != NONE:
            fired.append(rule)
            actions |= restricted
    if facts.is_strict and actions.degrades:
        actions = replace(actions, admit=Admit.REJECT)
    return Decision(facts, reading, actions, tuple(fired))


def _restricted(rule: Rule, facts: Facts) -> Actions:
    """What it restricts for this request, less what changes nothing for it."""
    actions = rule.on(facts.request_class)
    if facts.is_overridden and not rule.is_critical:
        return NONE
    if actions.is_small and facts.small is None:
        actions = replace(actions, is_small=False)
    if actions.is_reasoning_off and not facts.is_chat:
        actions = replace(actions, is_reasoning_off=False)
    if actions.max_tokens is not None and facts.max_tokens and facts.max_tokens <= actions.max_tokens:
        actions = replace(actions, max_tokens=None)
    return actions if facts.has_live_threads else replace(actions, threads=ALL_THREADS)


def _cause(refusing: Sequence[Rule], facts: Facts) -> Cause:
    """The worst of what the rules are about."""
    about = {condition.about for rule in refusing for condition in rule.when}
    if facts.request_class.yields and not any(rule.is_critical for rule in refusing):
        return Cause.BACKGROUND
    return next((cause for field, cause in CAUSES.items() if field in about), Cause.RULE)
