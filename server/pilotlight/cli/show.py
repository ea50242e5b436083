"""`pilotlight show`: everything known about one model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from pilotlight.cli.options import daemon_options, is_address_given, model_names, resolve

HIDDEN = ("object", "owned_by", "created")
"""For OpenAI's clients only."""


@click.command("show")
@click.argument("model", shell_complete=model_names)
@daemon_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(model: str, as_json: bool, **arguments: Any) -> None:
    """Show everything known about MODEL: its files, its settings, what it can do, what it is doing."""
    from pilotlight.cli.known import Known

    known = Known(resolve(**arguments), is_address_given=is_address_given(arguments)).show(model)
    click.echo(json.dumps(known, indent=2) if as_json else "\n".join(_lines(known)))


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`key  value`, the keys of inner objects after a dot; what is not known is left out."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _lines(value, f"{prefix}{key}.")
        elif value not in (None, [], (), "") and key not in HIDDEN:
            text = ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
            # Some of it comes out of a stranger's file.
            shown = "".join(letter if letter.isprintable() else " " for letter in text)
            yield f"{prefix + key:<32} {shown}"


def _text(value: Any) -> str:
    """One of a list; of an object, what it says."""
    return " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
