"""Measures what the policy costs a request in CPU time: to take a reading in, to decide, and to say it.

The target is absolute: `decide` within 100 microseconds at the 99th percentile.
"""

import statistics
import time
from itertools import pairwise

from pilotlight.api import said
from pilotlight.policy.decide import decide
from pilotlight.policy.facts import Facts
from pilotlight.policy.hysteresis import Hysteresis, InForce
from pilotlight.policy.settings import rules_of
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level
from table import Target, number, render

NUM_ROUNDS = 20_000

RULES = rules_of("balanced", ())
FACTS = Facts(model="large", small="tiny")


def main() -> None:
    limit = Target(100)
    rows = [["microseconds of CPU", "p50", "p99", "target p99"]]
    for name, times in _measure().items():
        p99 = statistics.quantiles(times, n=100)[98]
        verdict = f"{limit} {limit.verdict(p99)}" if name == "decide" else ""
        rows.append([name, number(statistics.median(times)), number(p99), verdict])
    print(render(rows))


def _measure() -> dict[str, list[float]]:
    """Every rule of the preset but the critical ones holds: the worst case."""
    in_force = InForce()
    times: dict[str, list[float]] = {"take in": [], "decide": [], "say": []}
    for second in range(NUM_ROUNDS):
        reading = Reading(
            at=float(second), supply=Supply.BATTERY, percent=14.0, is_saving=True, headroom=0.93,
            thermal=ThermalLevel.SERIOUS, memory=Level.WARN,
        )  # fmt: skip
        marks = [time.thread_time()]
        in_force = in_force.step(RULES, reading, Hysteresis())
        marks.append(time.thread_time())
        decision = decide(reading, RULES, FACTS, in_force)
        marks.append(time.thread_time())
        said.headers(decision)
        said.body(decision)
        marks.append(time.thread_time())
        for spent, (begin, end) in zip(times.values(), pairwise(marks), strict=True):
            spent.append((end - begin) * 1e6)
    return times


if __name__ == "__main__":
    main()
