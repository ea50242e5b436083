"""`pilotlight ps`: what the running daemon holds."""

import json
from collections.abc import Mapping
from typing import Any

import click

from pilotlight.cli.options import daemon_options
from pilotlight.cli.terminal import plain

COLUMNS = (
    *("model", "state", "runtime", "context", "threads"),
    *("memory", "expected", "unload", "active", "queued"),
)


@click.command("ps")
@daemon_options
@click.option("--json", "as_json", is_flag=True, help="Print what the daemon said, as JSON.")
def command(as_json: bool, **arguments: Any) -> None:
    """Show the models, their state and what they cost."""
    from pilotlight.cli.client import found
    from pilotlight.cli.tables import print_table

    client = found(arguments)
    models, memory, notices = client.models(), client.memory(), client.notices()
    if as_json:
        said = {"url": client.url, "models": models, "memory": memory, "notices": notices}
        click.echo(json.dumps(said, indent=2))
        return
    print_table(COLUMNS, map(_row, models))
    click.echo(f"{megabytes(memory['charged'])} charged of a budget of {megabytes(memory['budget'])}")
    if memory["archived"]:
        click.echo(f"{megabytes(memory['archived'])} of disk for conversations of unloaded models")
    for notice in notices:
        click.echo(plain(f"{notice['severity']}: {notice['text']}"))


def megabytes(num_bytes: int | None) -> str:
    """For a person; a dash for what is not known."""
    return f"{num_bytes / 2**20:,.0f} MiB" if num_bytes else "-"


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        model["id"],
        _state(model),
        model["runtime"],
        _shown(model["context"]),
        _threads(model),
        _memory(model),
        _expected(model),
        _when(model),
        _by_class(model, "active"),
        _by_class(model, "queued"),
    )


def _state(model: Mapping[str, Any]) -> str:
    """With how far its load is."""
    if model["state"] != "starting":
        return str(model["state"])
    return "measuring threads" if model["is_measuring"] else f"starting {model['progress']:.0%}"


def _threads(model: Mapping[str, Any]) -> str:
    """That compute it now, and how many are enough if that was measured."""
    enough = f" (enough: {model['enough_threads']})" if model["enough_threads"] else ""
    return _shown(model["threads"]) + enough


def _by_class(model: Mapping[str, Any], what: str) -> str:
    """How many, and how many of them are not interactive, or paused."""
    classes = {name: one[what] for name, one in model["classes"].items() if name != "interactive"}
    if what == "active":
        classes["paused"] = model["paused"]
    others = [f"{count} {name}" for name, count in classes.items() if count]
    return f"{model[what]} ({', '.join(others)})" if others else str(model[what])


def _memory(model: Mapping[str, Any]) -> str:
    """What it holds, of what it may come to hold."""
    held, charged = model["bytes_resident"], model["bytes_charged"]
    return f"{megabytes(held)} of {megabytes(charged)}" if held else megabytes(charged)


def _expected(model: Mapping[str, Any]) -> str:
    """What was estimated, at its load and at most."""
    cost = model["cost"]
    return f"{cost['estimated'] / 2**20:,.0f}-{megabytes(cost['at_most'])}" if cost else "-"


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)


def _when(model: Mapping[str, Any]) -> str:
    """When it is unloaded if nobody asks for it."""
    if model["state"] != "ready":
        return "-"
    if model["pin"]:
        return "pinned"
    if (seconds := model["unload_in_s"]) is None:
        return "busy" if model["active"] else "never"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
