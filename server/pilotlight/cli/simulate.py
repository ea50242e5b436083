"""`pilotlight simulate`: which policy keeps answers fast, on machines that exist only in arithmetic."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pilotlight.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from pilotlight.simulate.experiment import Plan, Run

EPILOG = """\b
Somebody asks for 300 tokens every 3 minutes or so, and background work never ends. INTERACTIVE is how
fast the answers come, mean and 5th percentile (P5), 1 being a cold machine; OF RACE the part of the
background work done that racing does; OF POSSIBLE the part of what leaves answers at cold speed at all;
STOPS/H how often the policy stops background work or lets it go on.

\b
Platforms:
  fan         a laptop with a fan
  fanless     one without
  pi5         a bare Raspberry Pi 5
  phone       a phone, whose governor falls off a cliff

\b
Policies:
  race        background work flat out
  none        no background work: the best that answers can be
  duty        half of the time
  hysteresis  on and off by temperature
  slowdown    pilotlight where there is no thermometer
  pilotlight  pilotlight's rules and its thermal controller
  threads     the same, with as few threads for background work as keep 95 % of its speed
  eco         the same, with the clock of a power-saver profile for it (Pi: 3 of 4 threads)

\b
Examples:
  pilotlight simulate
  pilotlight simulate --platform phone --policy race --policy pilotlight --plot phone.svg
  pilotlight simulate --vary 30 --machines 40    machines whose constants are off by up to 30 %
  pilotlight simulate --platform fan --battery   from a full battery until it is empty
  pilotlight simulate --battery --preset always  the same, with background work allowed
"""

PLATFORMS = ("fan", "fanless", "pi5", "phone")
POLICIES = ("race", "none", "duty", "hysteresis", "slowdown", "pilotlight", "threads", "eco")
PRESETS = ("always", "balanced", "quiet", "battery", "server", "off")
GOVERNORS = ("step-wise", "power-allocator", "cliff")

FLAT_HOURS = 200.0
"""No battery lasts longer, even if nothing is asked."""

NUM_VARIED = 8


@click.command("simulate", epilog=EPILOG)
@click.option("--platform", "platforms", type=click.Choice(PLATFORMS), multiple=True, help="[default: all]")
@click.option("--policy", "policies", type=click.Choice(POLICIES), multiple=True, help="[default: all]")
@click.option(
    "--governor",
    "governors",
    type=click.Choice(GOVERNORS),
    multiple=True,
    help="What throttles.  [default: the platform's]",
)
@click.option(
    "--preset", type=click.Choice(PRESETS), default="balanced", show_default=True, help="Of our rules."
)
@click.option("--hours", type=click.FloatRange(0.1, 1000), default=3.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of requests, noise and variation.")
@click.option("--vary", type=click.IntRange(1, 90), metavar="PERCENT", help="Vary every constant by so much.")
@click.option(
    "--machines", type=click.IntRange(1, 1000), help="Of each platform.  [default: 1, or 8 that vary]"
)
@click.option("--requests", type=click.Path(path_type=Path), metavar="FILE", help="JSON lines to replay.")
@click.option("--battery", is_flag=True, help="From a full battery until it is empty.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the machines (.svg, .png)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(as_json: bool, plot: Path | None, **wishes: Any) -> None:
    """Simulate machines under load, to see what policies for background work do. Nothing is measured."""
    from pilotlight.cli import simulate_report as report
    from pilotlight.simulate.experiment import runs

    draw = _drawing(plot)
    done = list(runs(_plan(**wishes)))
    if as_json:
        click.echo(json.dumps([report.figures(run) for run in done], indent=2))
    else:
        report.show(done, wishes["battery"])
    if draw is not None:
        draw(done)


def _plan(platforms: tuple[str, ...], policies: tuple[str, ...], battery: bool, **wishes: Any) -> "Plan":
    """Raises `ConfigError` for a wrong file of requests, `Error` for a machine without a battery."""
    from pilotlight.policy.settings import rules_of
    from pilotlight.simulate.experiment import Plan
    from pilotlight.simulate.platforms import PLATFORMS, GovernorName
    from pilotlight.simulate.traces import recorded

    machines = [PLATFORMS[name] for name in platforms or PLATFORMS]
    if battery:
        machines = [machine for machine in machines if machine.battery]
        if not machines:
            raise Error(f"{', '.join(platforms)} has no battery; fan, fanless and phone have one")
    vary, requests = wishes["vary"], wishes["requests"]
    return Plan(
        platforms=machines,
        policies=policies or POLICIES,
        governors=[GovernorName(name) for name in wishes["governors"]],
        hours=FLAT_HOURS if battery else wishes["hours"],
        seed=wishes["seed"],
        vary=(vary or 0) / 100,
        num_machines=wishes["machines"] or (NUM_VARIED if vary else 1),
        num_processes=os.cpu_count() or 1,
        trace=recorded(requests) if requests else None,
        is_on_battery=battery,
        rules=rules_of(wishes["preset"], ()),
    )


def _drawing(file: Path | None) -> "Callable[[list[Run]], None] | None":
    """What will draw into the file; raises `Error` now, and not after an hour, if it cannot."""
    if file is None:
        return None
    from pilotlight.simulate.plot import drawing

    return drawing(file)
