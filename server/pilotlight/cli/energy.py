"""`pilotlight energy`: what answers took, by model and by app."""

import json
from collections.abc import Mapping
from typing import Any

import click

from pilotlight.cli.options import daemon_options

COLUMNS = ("joules", "prompt", "answer", "j/token", "battery", "method", "scope")


@click.command("energy")
@daemon_options
@click.option("--json", "as_json", is_flag=True, help="Print what the daemon said, as JSON.")
def command(as_json: bool, **arguments: Any) -> None:
    """Show what answers took since the daemon started, by model and by app, and how that is known."""
    from pilotlight.cli.client import found
    from pilotlight.cli.tables import print_table

    said = found(arguments).energy()
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    for kind, names in (("model", ("model",)), ("app", ("app", "class"))):
        if rows := said[f"{kind}s"]:
            print_table((*names, *COLUMNS), ((*(row[name] for name in names), *_row(row)) for row in rows))
    for meter in said["meters"]:
        click.echo(f"{meter['method']}: {_meter(meter)}")


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    tokens, percent = row["decode_tokens"], row.get("battery_percent")
    return (
        f"{row['joules']:,.1f}",
        f"{row['prefill_joules']:,.1f}",
        f"{row['decode_joules']:,.1f}",
        f"{row['decode_joules'] / tokens:.3g}" if tokens else "-",
        "-" if percent is None else f"{percent:.2f} %",
        row["method"],
        row["scope"],
    )


def _meter(meter: Mapping[str, Any]) -> str:
    if "reason" in meter:
        return f"counts nothing now: {meter['reason']}"
    nobodys = meter["unattributed_joules"]
    return (
        f"{meter['joules']:,.1f} J ({meter['scope']}) while there was work, {nobodys:,.1f} of them nobody's"
    )
