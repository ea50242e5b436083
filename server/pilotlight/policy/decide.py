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
        """Those without which it would not be refused or wait."""
        facts = self.facts

        def blocks(actions: Actions) -> bool:
            return actions.admit is not Admit.NOW or (facts.is_strict and actions.degrades)

        return tuple(rule for rule in self.fired if blocks(_restricted(rule, facts)))

    @property
    def reason(self) -> str:
        """A sentence for people; empty if nothing is restricted."""
        return words.sentence(self.reading, self.fired, self.actions, self.facts) if self.fired else ""

    @property
    def cause(self) -> Cause | None:
        """Of a refusal."""
        return _cause(self.fired, self.facts) if self.actions.admit is Admit.REJECT else None


def decide(
    reading: Reading, rules: Sequence[Rule], facts: Facts, in_force: InForce | None = None
) -> Decision:
    """Of the rules, those in force count (`in_force`); without that, those that the reading alone fulfils."""
    fired: list[Rule] = []
    actions = NONE
    for rule in rules:
        holds = rule.begins(reading) if in_force is None else rule.name in in_force.since
        if holds and (restricted := _restricted(rule, facts)) != NONE:
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
    if actions.max_tokens is not None and facts.max_tokens and facts.max_tokens <= actions.max_tokens:
        actions = replace(actions, max_tokens=None)
    return actions if facts.has_live_threads else replace(actions, threads=ALL_THREADS)


def _cause(fired: Sequence[Rule], facts: Facts) -> Cause:
    """The worst of what the rules are about."""
    about = {condition.about for rule in fired for condition in rule.when}
    if facts.request_class.yields and not any(rule.is_critical for rule in fired):
        return Cause.BACKGROUND
    return next((cause for field, cause in CAUSES.items() if field in about), Cause.RULE)
