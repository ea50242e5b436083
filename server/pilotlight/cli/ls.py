"""`pilotlight ls`: all models there are."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from pilotlight.cli.options import daemon_options, is_address_given, resolve

COLUMNS = ("name", "runtime", "size", "found in", "state", "aliases")


@click.command("ls")
@daemon_options
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(as_json: bool, **arguments: Any) -> None:
    """List all models: configured, or found on this machine; with or without a running daemon."""
    from pilotlight.cli.known import Known
    from pilotlight.cli.tables import print_table

    known = Known(resolve(**arguments), is_address_given=is_address_given(arguments)).listing()
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    print_table(COLUMNS, (row for model in known["models"] for row in _rows(model)))
    # A daemon of an earlier version says nothing of them.
    for name in known.get("not_pulled", ()):
        click.echo(f"{name} is not on this machine yet; `pilotlight pull {name}` gets it")
    if num_skipped := len(known["not_used"]):
        click.echo(f"{num_skipped} more cannot be used; `pilotlight doctor` says why")


def _rows(model: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The model, and below it what it has of versions besides the active one."""
    size = _size(model["bytes_disk"]) if model["bytes_disk"] else "missing"
    yield model["id"], model["runtime"], size, model["store"], model["state"], ", ".join(model["aliases"])
    for one in model["versions"]:
        if one["state"] != "active":
            yield f"  {one['state']} version {one['version']}", "", _size(one["bytes"]), "", "", ""


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
