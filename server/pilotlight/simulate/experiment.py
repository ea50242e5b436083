"""Policies side by side on the same machines: what `pilotlight simulate` runs."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from msgspec import Struct
from msgspec.structs import replace

from pilotlight.policy.rules import Rule
from pilotlight.simulate.bound import most_background
from pilotlight.simulate.machine import Machine, Scenario
from pilotlight.simulate.platforms import GovernorName, Platform
from pilotlight.simulate.policies import policy
from pilotlight.simulate.record import Figures, Record, figures
from pilotlight.simulate.traces import Trace, generated


class Plan(Struct, frozen=True):
    """What is simulated. `trace` None is the generated one, another for each machine."""

    platforms: Sequence[Platform]
    policies: Sequence[str]
    governors: Sequence[GovernorName] = ()
    """None: each platform's own."""
    hours: float = 3.0
    seed: int = 0
    vary: float = 0.0
    """By how much the constants of other machines are off; 0 is none."""
    num_machines: int = 1
    """Of each platform: the one itself, and others that vary."""
    num_processes: int = 1
    """That simulate side by side."""
    trace: Trace | None = None
    is_on_battery: bool = False
    rules: tuple[Rule, ...] = ()
    """Of Pilotlight's own policies."""


class Run(Struct, frozen=True):
    """One machine under one policy."""

    platform: Platform
    governor: GovernorName
    machine: int
    """0 is the platform itself."""
    policy: str
    figures: Figures
    record: Record
    possible: float
    """Tokens of background work that leave answers at cold speed, see `bound`."""
    racing: float | None = None
    """Those that racing does on the same machine, if it was run, too."""

    @property
    def kept(self) -> float | None:
        """Of the background work that racing does."""
        return self.record.background / self.racing if self.racing else None

    @property
    def kept_at_most(self) -> float | None:
        """Of the background work that racing does, what is possible."""
        return self.possible / self.racing if self.racing else None


class _Case(Struct, frozen=True):
    """A machine under a governor."""

    plan: Plan
    platform: Platform
    governor: GovernorName
    number: int


def runs(plan: Plan) -> Iterator[Run]:
    """Every policy on every machine of every platform and governor, as it is done."""
    cases = [
        _Case(plan, platform, governor, number)
        for platform in plan.platforms
        for governor, number in product(plan.governors or [platform.governor], range(plan.num_machines))
    ]
    num_processes = min(plan.num_processes, len(cases))
    if num_processes == 1:
        for case in cases:
            yield from _runs(case)
        return
    # A terminal sends Ctrl-C to all of them: it ends them where they are, and one process tells.
    ends = (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(num_processes, initializer=signal.signal, initargs=ends) as pool:
        futures = [pool.submit(_runs, case) for case in cases]
        try:
            for future in futures:
                yield from future.result()
        finally:
            # By the pool's own thread, which would say that it stumbles over what is cancelled by another.
            pool.shutdown(cancel_futures=True)


def _runs(case: _Case) -> list[Run]:
    """Racing first: the others are held against it."""
    names = sorted(case.plan.policies, key=lambda name: name != "race")
    done = [_run(case, name) for name in names]
    racing = done[0].record.background if names[0] == "race" else None
    return [replace(run, racing=racing) for run in done]


def _run(case: _Case, name: str) -> Run:
    plan, seed = case.plan, case.plan.seed + case.number
    platform = case.platform.vary(plan.vary, seed) if case.number else case.platform
    governor, chosen = platform.govern(case.governor), policy(name, plan.rules)
    scenario = Scenario(
        platform=platform,
        governor=governor,
        trace=plan.trace or generated(plan.hours * 3600, seed),
        is_on_battery=plan.is_on_battery,
        seed=seed,
    )
    record = Machine(scenario, chosen).run(plan.hours * 3600)
    answering = (record.tokens - record.background) / platform.chip.tokens_per_s / record.seconds
    rate = most_background(platform, governor.edge, answering, platform.setting(chosen.saving))
    return Run(platform, case.governor, case.number, name, figures(record), record, rate * record.seconds)
