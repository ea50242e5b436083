"""Policies side by side on the same machines: what `pilotlight simulate` runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pilotlight.policy.rules import Rule
from pilotlight.simulate.machine import Machine, Scenario
from pilotlight.simulate.platforms import GovernorName, Platform
from pilotlight.simulate.policies import policy
from pilotlight.simulate.record import Figures, Record, figures
from pilotlight.simulate.traces import Trace, generated


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated. `trace` None is the generated one, another for each machine."""

    platforms: Sequence[Platform]
    policies: Sequence[str]
    governor: GovernorName | None = None
    """None: each platform's own."""
    hours: float = 3.0
    seed: int = 0
    vary: float = 0.0
    """By how much the constants of other machines are off; 0 is none."""
    num_machines: int = 1
    """Of each platform: the one itself, and others that vary."""
    trace: Trace | None = None
    is_on_battery: bool = False
    rules: tuple[Rule, ...] = ()
    """Of Pilotlight's own policies."""


@dataclass(frozen=True, slots=True)
class Run:
    """One machine under one policy."""

    platform: Platform
    machine: int
    """0 is the platform itself."""
    policy: str
    figures: Figures
    record: Record
    kept: float | None = None
    """Of the background work that racing does on the same machine, if both were run."""


def runs(plan: Plan) -> Iterator[Run]:
    """Every policy on every machine of every platform, as it is done."""
    for platform in plan.platforms:
        for number in range(plan.num_machines):
            machine = platform.vary(plan.vary, plan.seed + number) if number else platform
            racing: float | None = None
            for name in sorted(plan.policies, key=lambda name: name != "race"):
                run = _run(plan, machine, number, name)
                if name == "race":
                    racing = run.record.background
                yield replace(run, kept=run.record.background / racing if racing else None)


def _run(plan: Plan, platform: Platform, number: int, name: str) -> Run:
    seconds, seed = plan.hours * 3600, plan.seed + number
    scenario = Scenario(
        platform=platform,
        governor=platform.govern(plan.governor or platform.governor),
        trace=plan.trace or generated(seconds, seed),
        is_on_battery=plan.is_on_battery,
        seed=seed,
    )
    record = Machine(scenario, policy(name, plan.rules)).run(seconds)
    return Run(platform, number, name, figures(record), record)
