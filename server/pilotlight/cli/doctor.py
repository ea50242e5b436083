"""`pilotlight doctor`: what was found on this machine, and what to do about it."""

import json
import platform
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from pilotlight import __version__
from pilotlight.cli.options import catalog, daemon_options, is_address_given, resolve
from pilotlight.cli.terminal import plain

if TYPE_CHECKING:
    from pilotlight.config import Config
    from pilotlight.registry.ladder import Ladder

EPILOG = """\b
Exit codes:
  0  fine
  1  something is wrong: the advice, or a notice of the daemon, says what
"""


@click.command("doctor", epilog=EPILOG)
@daemon_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--reset", is_flag=True, help="Forget which safe modes crashes at load led to.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, reset: bool, **arguments: Any) -> None:
    """Look at the machine, the runtimes and the daemon, and give advice."""
    from pilotlight import log
    from pilotlight.registry.ladder import Ladder

    log.configure("warning")
    config = resolve(**arguments)
    ladder = Ladder(config.state_dir)
    if reset:
        ladder.forget()
    findings = _find(config, ladder, is_address_given(arguments))
    click.echo(json.dumps(findings, indent=2) if as_json else plain("\n".join(_lines(findings))))
    is_wrong = findings["advice"] or any(notice["severity"] != "info" for notice in findings["notices"])
    ctx.exit(1 if is_wrong else 0)


def _find(config: "Config", ladder: "Ladder", is_address_given: bool) -> dict[str, Any]:
    from collections import Counter

    from msgspec import to_builtins

    from pilotlight.cli import client, machine
    from pilotlight.cli.advice import advise
    from pilotlight.registry import keys, memory
    from pilotlight.registry.description import at_rest, listing
    from pilotlight.registry.ladder import MODES

    cpu, libraries = machine.cpu(), machine.libraries()
    climbed = [ladder.outcome(library.runtime) for library in libraries if library.runtime in MODES]
    outcomes = [outcome for outcome in climbed if outcome is not None]
    daemon = client.find(config, is_address_given=is_address_given)
    known = listing(map(at_rest, found := catalog(config)), found.skipped, (), {})
    return {
        "pilotlight": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "cpu": to_builtins(cpu),
        "memory": to_builtins(memory.read()),
        "power": _senses(config),
        "runtimes": [to_builtins(library) for library in libraries],
        "config": str(config.file),
        "state_dir": str(config.state_dir),
        "places": [{"store": place.store, "path": str(place.path)} for place in config.places],
        "models": Counter(model["store"] for model in known["models"]),
        "not_used": known["not_used"],
        "admin_key": str(keys.admin_file(config.state_dir)),
        "daemon": daemon.url if daemon else None,
        "outcomes": [to_builtins(outcome) for outcome in ladder.outcomes()],
        "notices": daemon.notices() if daemon else [],
        "advice": list(advise(cpu, libraries, outcomes, sys.executable)),
    }


def _senses(config: "Config") -> dict[str, dict[str, str]]:
    """What can be known of power and heat here: where from, or why not."""
    import time

    from pilotlight.power.finding import assemble
    from pilotlight.power.machine import ThisMachine

    reading = assemble(ThisMachine(config.power.root).look(time.monotonic(), ()), 0.0)
    known = {field: origin.source for field, origin in reading.origins.items()}
    return {"known": known, "unknown": dict(reading.unknown)}


def _lines(findings: Mapping[str, Any]) -> Iterator[str]:
    for key in ("pilotlight", "python", "platform"):
        yield _line(key, findings[key])
    cpu, memory = findings["cpu"], findings["memory"]
    yield _line("cpu", f"{cpu['name']}, {cpu['cores'] or '?'} cores, {cpu['threads'] or '?'} threads")
    yield _line("features", "unknown" if cpu["features"] is None else " ".join(cpu["features"]))
    yield _line("memory", f"{_gib(memory['bytes_available'])} available of {_gib(memory['bytes_total'])}")
    for library in findings["runtimes"]:
        # Not wrapped: the line to install it is to be copied.
        yield f"{library['runtime']:<11} {_state(library)}"
    yield _line("config", findings["config"])
    yield _line("state", findings["state_dir"])
    yield _line("admin key", findings["admin_key"])
    yield _line("daemon", findings["daemon"] or "not running")
    yield _line("models", ", ".join(f"{count} in {store}" for store, count in findings["models"].items()))
    for skipped in findings["not_used"]:
        yield _line("not used", f"{skipped['store']}: {skipped['path']} {skipped['reason']}")
    power = findings["power"]
    yield _line("power", ", ".join(f"{field} ({source})" for field, source in power["known"].items()) or "-")
    yield _line("not known", ", ".join(f"{field} ({reason})" for field, reason in power["unknown"].items()))
    for outcome in findings["outcomes"]:
        mode = (
            f"{outcome['runtime']} {outcome['build']} needs the mode {outcome['mode']}: {outcome['reason']}"
        )
        yield _line("crashes", mode)
    for notice in findings["notices"]:
        yield _line(notice["severity"], notice["text"])
    for advice in findings["advice"]:
        yield "\n" + advice


def _state(library: Mapping[str, Any]) -> str:
    """Versions and providers of what is there, or how to get it."""
    distributions = {library["package"]: library["version"], **dict(library["needs"])}
    if missing := [name for name, version in distributions.items() if version is None]:
        pip = f"{shlex.quote(sys.executable)} -m pip install '{library['install']}'"
        return f"{', '.join(missing)} not installed: {pip}"
    state = ", ".join(f"{name} {version}" for name, version in distributions.items())
    if library["providers"]:
        state += f"; providers: {', '.join(library['providers'])}"
    return f"{state}; cannot be imported: {library['fault']}" if library["fault"] else state


def _line(label: str, text: str) -> str:
    return textwrap.fill(f"{label:<11} {text}", width=110, subsequent_indent=" " * 12)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
