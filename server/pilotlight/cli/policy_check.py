"""`pilotlight policy check`: what a file of rules does with a machine that is described in another."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

if TYPE_CHECKING:
    from pilotlight.policy.check import Verdict
    from pilotlight.policy.decide import Decision

EPILOG = """\b
READING is JSON; what it leaves out is unknown:
  {"supply": "battery", "percent": 14, "thermal": "serious", "memory": "normal", "minute": "22:30"}
What `pilotlight policy --json` prints will do, too.
"""

CLASSES = ("interactive", "background", "batch")


@click.command("check", epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--reading", type=click.File("rb"), required=True, help="The machine's state; - is stdin.")
@click.option(
    "--class", "chosen", type=click.Choice(CLASSES), multiple=True, help="Only this class. Repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(file: Path, reading: Any, chosen: tuple[str, ...], as_json: bool) -> None:
    """Show what the rules of FILE, a models.toml, do with requests while the machine is like READING."""
    from pilotlight.cli.options import resolve
    from pilotlight.core import RequestClass
    from pilotlight.policy.check import read, verdicts
    from pilotlight.policy.decide import decide
    from pilotlight.policy.facts import Facts
    from pilotlight.policy.settings import rules_of
    from pilotlight.power.sampling import local_minute

    config = resolve(file)
    rules = rules_of(config.policy.preset, config.rules)
    state = read(_json(reading), local_minute())
    facts = [Facts(RequestClass(name), "the model", "its small one") for name in chosen or CLASSES]
    _print([decide(state, rules, one) for one in facts], verdicts(rules, state), as_json)


def _json(file: Any) -> Any:
    from pilotlight.errors import ConfigError

    try:
        return json.load(file)
    except ValueError as error:
        raise ConfigError(f"{file.name} is not JSON: {error}") from error


def _print(plan: "list[Decision]", verdicts: "list[Verdict]", as_json: bool) -> None:
    classes: dict[str, dict[str, Any]] = {
        decision.facts.request_class.value: {
            "action": dict(decision.actions.words()),
            "rules": decision.rules,
            "reason": decision.reason,
        }
        for decision in plan
    }
    if as_json:
        rules = [to_builtins(verdict) for verdict in verdicts]
        click.echo(json.dumps({"classes": classes, "rules": rules}, indent=2))
        return
    for name, said in classes.items():
        action = said["action"]
        what = (
            ", ".join(f"{field} = {value}" for field, value in action.items()) if action else "unrestricted"
        )
        click.echo(f"{name}: {what}" + (f"\n  {said['reason']}" if action else ""))
    for verdict in verdicts:
        click.echo(f"\n{'holds' if verdict.holds else 'does not hold'}: {verdict.rule}")
        for text, is_so, value in verdict.conditions:
            click.echo(f"  {'yes' if is_so else 'no':<3} {text} (it is {value})")
