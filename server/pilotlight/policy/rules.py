"""A rule: when it holds, and what it restricts for which class of requests. Pure values.

A rule can only restrict, so rules need no order; see `actions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pilotlight.core import RequestClass
from pilotlight.policy.actions import NONE, Actions
from pilotlight.policy.conditions import NO_SLACK, Condition, MemoryIs, Slack, ThermalIs
from pilotlight.power.reading import Reading, ThermalLevel
from pilotlight.registry.pressure import Level as MemoryLevel

CRITICAL = (ThermalIs(ThermalLevel.CRITICAL), MemoryIs(MemoryLevel.CRITICAL))


@dataclass(frozen=True, slots=True)
class Rule:
    """It begins when all of `when` is so. It holds as long as that is so, give or take a slack, or any of
    `unless` is: what has to be over before the rule ends."""

    name: str
    when: tuple[Condition, ...]
    actions: Mapping[RequestClass, Actions]
    unless: tuple[Condition, ...] = ()
    is_critical: bool = field(init=False)
    """It protects the machine: it begins at once, and nobody overrides it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_critical", any(condition in CRITICAL for condition in self.when))

    def begins(self, reading: Reading) -> bool:
        return all(condition.is_met(reading) for condition in self.when)

    def holds(self, reading: Reading, slack: Slack = NO_SLACK) -> bool:
        """Once it has begun."""
        return all(condition.is_met(reading, slack) for condition in self.when) or any(
            condition.is_met(reading) for condition in self.unless
        )

    def on(self, request_class: RequestClass) -> Actions:
        """What it restricts for requests of this class."""
        return self.actions.get(request_class, NONE)
