"""What `pilotlight simulate` says, as tables for a person and as figures for a program."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import click
from msgspec import Struct, to_builtins

from pilotlight.cli.tables import print_table
from pilotlight.simulate.experiment import Run

WARNING = "Simulated, not measured: no figure is one of a device."

FEWEST_FOR_5_PERCENT = 20
"""With fewer machines the worst in twenty is the worst."""

MOST = 0.60
"""Of the background work that racing does: what a policy is to keep where heat lets it."""

UNCOMPARED = ("race", "none")
"""Policies that keep all of it or nothing by themselves."""

BEGINNING = ("platform", "governor", "policy")
MACHINES = "of machines"

Row = tuple[float | None, ...]


class Column(Struct, frozen=True):
    """A figure: its name, its form, and whether more of it is worse."""

    name: str
    form: str
    is_cost: bool = False


INTERACTIVE = (Column("interactive", ".2f"), Column("p5", ".2f"))
COST = Column("J/token", ".2f", is_cost=True)

COLUMNS = (
    *INTERACTIVE,
    Column("background ktok/h", ".1f"),
    Column("of race", ".0%"),
    Column("of possible", ".0%"),
    COST,
    Column("W", ".1f", is_cost=True),
    Column("throttled", ".1%", is_cost=True),
    Column("stops/h", ".1f", is_cost=True),
)
ON_BATTERY = (
    *INTERACTIVE,
    Column("background ktok", ".1f"),
    Column("of race", ".0%"),
    COST,
    Column("minutes", ".0f"),
    Column("background J", ".0f", is_cost=True),
)


def figures(run: Run) -> dict[str, Any]:
    """All numbers of one machine under one policy."""
    names = {"platform": run.platform.name, "governor": run.governor, "machine": run.machine}
    kept = {"kept": run.kept, "kept_at_most": run.kept_at_most}
    return {"simulated": True, **names, "policy": run.policy, **to_builtins(run.figures), **kept}


def show(runs: Sequence[Run], is_on_battery: bool) -> None:
    """A row for each policy on each platform; of several machines the mean, the worst in twenty, and the
    worst."""
    click.echo(WARNING)
    columns, row = (ON_BATTERY, _on_battery) if is_on_battery else (COLUMNS, _on_mains)
    has_several = bool(runs) and bool(runs[-1].machine)
    names = (*BEGINNING, *([MACHINES] if has_several else []), *(column.name for column in columns))
    lines: list[list[str]] = []
    for key, group in _groups(runs):
        rows = [row(run) for run in group]
        for name, values in _statistics(rows, columns):
            shown = [_shown(value, column) for value, column in zip(values, columns, strict=True)]
            lines.append([*key, *([name] if has_several else []), *shown])
    print_table(names, lines)
    if has_several and not is_on_battery:
        for key, group in _groups(runs):
            for verdict in _verdicts(" ".join(key), group):
                click.echo(verdict)


def _verdicts(name: str, runs: Sequence[Run]) -> Iterator[str]:
    """What means hide: how many of several machines kept `MOST`, and how many could not."""
    compared = [run for run in runs if run.kept is not None and run.policy not in UNCOMPARED]
    if not compared:
        return
    able = [run for run in compared if (run.kept_at_most or 0) >= MOST]
    num_kept = sum((run.kept or 0) >= MOST for run in able)
    yield (
        f"{name}: {MOST:.0%} of race's background work is done on {num_kept} of the {len(able)} machines"
        f" (of {len(compared)}) where it is possible"
    )
    if num_full := sum(run.possible == 0 for run in compared):
        yield f"{name}: {num_full} have no room for any beside answers at cold speed"


def _groups(runs: Sequence[Run]) -> Iterator[tuple[tuple[str, ...], list[Run]]]:
    """Of the same platform, governor and policy, in the order of the runs."""
    order = {key: number for number, key in enumerate(dict.fromkeys(map(_key, runs)))}
    for key, group in groupby(sorted(runs, key=lambda run: order[_key(run)]), key=_key):
        yield key, list(group)


def _key(run: Run) -> tuple[str, ...]:
    return run.platform.name, run.governor.value, run.policy


def _statistics(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[tuple[str, Row]]:
    """Rows made of those of several machines, each figure by itself."""
    every = [
        sorted((value for value in values if value is not None), reverse=column.is_cost)
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    yield "mean", tuple(sum(values) / len(values) if values else None for values in every)
    if len(rows) >= FEWEST_FOR_5_PERCENT:
        yield "worst 5%", tuple(values[int(0.05 * len(values))] if values else None for values in every)
    if len(rows) > 1:
        yield "worst", tuple(values[0] if values else None for values in every)


def _on_mains(run: Run) -> Row:
    found = run.figures
    return (
        found.mean,
        found.p5,
        found.background_per_h / 1000,
        run.kept,
        run.record.background / run.possible if run.possible else None,
        found.joules_per_token,
        found.watts,
        found.throttled,
        found.transitions_per_h,
    )


def _on_battery(run: Run) -> Row:
    """From full to empty."""
    found = run.figures
    return (
        found.mean,
        found.p5,
        found.background_per_h * found.hours / 1000,
        run.kept,
        found.joules_per_token,
        found.hours * 60,
        found.background_joules,
    )


def _shown(value: float | None, column: Column) -> str:
    return "-" if value is None else f"{value:{column.form}}"
