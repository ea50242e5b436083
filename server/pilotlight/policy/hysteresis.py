"""Which rules are in force, over time: they begin fast and end slowly.

Pure: time is that of the readings. A rule that begins waits for `enter_after`, so that a plug that is pulled
and put back changes nothing; a critical one does not wait. One that ends does so only when things are better
than where it began, by `battery` and `thermal`, and have been for `leave_after`: noise around a threshold is
no transition.

How long something has been so counts from the last reading that said otherwise. So nothing is waited for
after a time in which nobody looked.
"""

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from pilotlight.policy.conditions import LOAD_SLACK, Slack
from pilotlight.policy.rules import Rule
from pilotlight.power.reading import Reading


class Hysteresis(Struct, frozen=True):
    """`battery` is in percent points, `thermal` in headroom, the others in seconds."""

    battery: float = 5.0
    thermal: float = 0.10
    enter_after: float = 2.0
    leave_after: float = 30.0

    @property
    def slack(self) -> Slack:
        return Slack(self.battery, self.thermal, LOAD_SLACK)


class InForce(Struct, frozen=True):
    """The rules in force as of the reading `at`, by name, and `since` when.

    `turning` are those about to begin or end, and the last reading that said otherwise.
    """

    at: float = -math.inf
    since: Mapping[str, float] = field(default_factory=dict)
    turning: Mapping[str, float] = field(default_factory=dict)

    def step(self, rules: Iterable[Rule], reading: Reading, hysteresis: Hysteresis) -> "InForce":
        """What stands after this reading."""
        slack = hysteresis.slack
        since: dict[str, float] = {}
        turning: dict[str, float] = {}
        for rule in rules:
            began = self.since.get(rule.name)
            stands = began is not None
            if stands != (rule.holds(reading, slack) if stands else rule.begins(reading)):
                turned_at = self.turning.get(rule.name, self.at)
                if reading.at - turned_at >= _delay(rule, stands, hysteresis):
                    stands = not stands
                else:
                    turning[rule.name] = turned_at
            if stands:
                since[rule.name] = reading.at if began is None else began
        return InForce(reading.at, since, turning)

    def carried(self, before: Iterable[Rule], after: Iterable[Rule]) -> "InForce":
        """What stands when other rules count, until their first reading: all that is known of those that
        hold when they did before."""
        whens = {(rule.name, rule.when, rule.unless) for rule in before}
        same = {rule.name for rule in after if (rule.name, rule.when, rule.unless) in whens}
        since = {name: at for name, at in self.since.items() if name in same}
        known = dict.fromkeys(since, self.at) | dict(self.turning)
        return InForce(since=since, turning={name: at for name, at in known.items() if name in same})

    def ends_in_s(self, rule: Rule, hysteresis: Hysteresis) -> float | None:
        """Seconds until it ends if nothing gets worse; None if it is not about to end."""
        return self._turns_in_s(rule, hysteresis) if rule.name in self.since else None

    def begins_in_s(self, rule: Rule, hysteresis: Hysteresis) -> float | None:
        """Seconds until it begins if nothing gets better; None if it is not about to begin."""
        return None if rule.name in self.since else self._turns_in_s(rule, hysteresis)

    def _turns_in_s(self, rule: Rule, hysteresis: Hysteresis) -> float | None:
        turned_at = self.turning.get(rule.name)
        if turned_at is None or self.at == -math.inf:
            return None
        return max(0.0, turned_at + _delay(rule, rule.name in self.since, hysteresis) - self.at)


def _delay(rule: Rule, is_in_force: bool, hysteresis: Hysteresis) -> float:
    if is_in_force:
        return hysteresis.leave_after
    return 0.0 if rule.is_critical else hysteresis.enter_after
