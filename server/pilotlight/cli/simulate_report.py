"""What `pilotlight simulate` says, as tables for a person and as figures for a program."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import click

from pilotlight.cli.tables import print_table
from pilotlight.simulate.experiment import Run

WARNING = "Simulated, not measured: no figure is one of a device."

COLUMNS = (
    "platform",
    "policy",
    "interactive",
    "background ktok/h",
    "of race",
    "J/token",
    "W",
    "throttled",
    "stops/h",
)
ON_BATTERY = (*COLUMNS[:3], "background ktok", "of race", "J/token", "minutes", "background J")

Pick = Callable[[Sequence[float]], float]


def figures(run: Run) -> dict[str, Any]:
    """All numbers of one machine under one policy."""
    names = {"platform": run.platform.name, "machine": run.machine, "policy": run.policy}
    return {"simulated": True, **names, **asdict(run.figures), "kept": run.kept}


def show(runs: Sequence[Run], is_on_battery: bool) -> None:
    """A row for each policy on each platform: of several machines the mean, and the worst in brackets."""
    click.echo(WARNING)
    rows = _groups(runs)
    if is_on_battery:
        print_table(ON_BATTERY, (_flat_row(group) for group in rows))
    else:
        print_table(COLUMNS, (_row(group) for group in rows))
    if runs and runs[-1].machine:
        click.echo("Means over the machines, and in brackets the worst of them.")


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Of the same platform and policy, in the order of the runs."""
    order = {key: number for number, key in enumerate(dict.fromkeys(map(_key, runs)))}
    for _, group in groupby(sorted(runs, key=lambda run: order[_key(run)]), key=_key):
        yield list(group)


def _key(run: Run) -> tuple[str, str]:
    return run.platform.name, run.policy


def _row(group: list[Run]) -> list[str]:
    every = [run.figures for run in group]
    return [
        *_beginning(group),
        _number([one.background_per_h / 1000 for one in every], min, ".1f"),
        _number([run.kept for run in group], min, ".0%"),
        _number([one.joules_per_token for one in every], max, ".2f"),
        _number([one.watts for one in every], max, ".1f"),
        _number([one.throttled for one in every], max, ".1%"),
        _number([one.transitions_per_h for one in every], max, ".1f"),
    ]


def _flat_row(group: list[Run]) -> list[str]:
    """From full to empty."""
    every = [run.figures for run in group]
    return [
        *_beginning(group),
        _number([one.background_per_h * one.hours / 1000 for one in every], min, ".1f"),
        _number([run.kept for run in group], min, ".0%"),
        _number([one.joules_per_token for one in every], max, ".2f"),
        _number([one.hours * 60 for one in every], min, ".0f"),
        _number([one.background_joules for one in every], max, ".0f"),
    ]


def _beginning(group: list[Run]) -> list[str]:
    platform, policy = _key(group[0])
    mean = _number([run.figures.mean for run in group], min, ".2f")
    p5 = _number([run.figures.p5 for run in group], min, ".2f")
    return [platform, policy, f"{mean} / {p5}"]


def _number(values: Sequence[float | None], worst: Pick, form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{sum(known) / len(known):{form}}"
    return mean if len(values) == 1 else f"{mean} ({worst(known):{form}})"
