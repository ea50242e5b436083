"""`pilotlight policy`: what the running daemon knows of the machine."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from pilotlight.cli import policy_check
from pilotlight.cli.options import daemon_options

if TYPE_CHECKING:
    from pilotlight.cli.client import Client

COLUMNS = ("reading", "value", "age", "source", "confidence")

WATCH_S = 2.0


@click.group("policy", invoke_without_command=True)
@daemon_options
@click.option("--json", "as_json", is_flag=True, help="Print what the daemon said, as JSON.")
@click.option("--watch", is_flag=True, help="Say it again every two seconds, until Ctrl-C.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, watch: bool, **arguments: Any) -> None:
    """Show what is known of power, heat and load, and where from."""
    import time

    from pilotlight.cli.client import found

    if ctx.invoked_subcommand is not None:
        return
    client = found(arguments)
    while True:
        _show(client, as_json)
        if not watch:
            return
        time.sleep(WATCH_S)
        if not as_json:
            click.clear()


command.add_command(policy_check.command)


def _show(client: "Client", as_json: bool) -> None:
    from pilotlight.cli.tables import print_table

    policy = client.policy()
    if as_json:
        click.echo(json.dumps(policy, indent=2))
        return
    reading = policy["reading"]
    print_table(COLUMNS, (_row(field, value) for field, value in reading.items() if "source" in value))
    for field, value in reading.items():
        if "reason" in value:
            click.echo(f"{field} is not known: {value['reason']}")
    for line in _decided(policy):
        click.echo(line)


def _decided(policy: Mapping[str, Any]) -> Iterator[str]:
    """The rules in force, and what they do."""
    yield f"\nthe preset is {policy['preset']}"
    if policy["override_left_s"]:
        yield f"overridden for another {policy['override_left_s']:.0f} s"
    for rule in policy["rules"]:
        yield f"rule: {rule['name']}" + _change(rule)
    for name, said in policy["classes"].items():
        yield f"{name}: {said['reason'] if said else 'unrestricted'}"
    yield from _paced(policy["pacing"])
    if policy["saver_held"]:
        yield "clock: the system's power saver is held while nothing but background work runs"


def _change(rule: Mapping[str, Any]) -> str:
    """Of a rule, if one is near."""
    changes = {"begins": rule["begins_in_s"], "ends": rule["ends_in_s"]}
    return "".join(f", {what} in {seconds:.0f} s" for what, seconds in changes.items() if seconds is not None)


def _paced(pacing: Mapping[str, Any]) -> Iterator[str]:
    """What heat means for background work."""
    duty, left_s = f"{100 * pacing['duty']:.0f} % of the time", pacing["rest_left_s"]
    rests = ", and rests now" if pacing["is_resting"] else ""
    yield f"heat: background work runs {duty}{rests}" + ("" if left_s is None else f", for {left_s:.0f} s")
    yield f"  {pacing['reason']}"
    if pacing["reserve"] is not None:
        yield f"  kept free for the next answer: {pacing['reserve']:.2f} of headroom"


def _row(field: str, value: Mapping[str, Any]) -> tuple[str, ...]:
    shown = f"{value['value']:.2f}" if isinstance(value["value"], float) else str(value["value"])
    unit = f" {value['unit']}" if "unit" in value else ""
    return field, shown + unit, f"{value['age_s']:.0f} s", value["source"], value["confidence"]
