"""`pilotlight fit`: will a model fit this machine, at which context, and how fast will it be."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from pilotlight.cli.options import catalog, model_names, resolve
from pilotlight.cli.terminal import plain
from pilotlight.errors import Error

if TYPE_CHECKING:
    from pilotlight.config import Config
    from pilotlight.core import Model
    from pilotlight.registry.budget import Amount
    from pilotlight.registry.fit import Subject, Verdict
    from pilotlight.registry.ladder import Ladder

EPILOG = """\b
Nothing is loaded, and a header is enough: a GGUF file's first megabytes will do. LOADED is the memory
right after the load, AT MOST that with the whole context in use, and 8-BIT KV the same with keys and values
in 8 bits instead of 16 (kv_cache_type = "q8_0" in its [[model]] table).

\b
Exit codes:
  0  it fits
  1  it does not; the advice says what would make it fit

\b
Examples:
  pilotlight fit ./Qwen3-8B-Q4_K_M.gguf
  pilotlight fit qwen3-4b --context 32768
  pilotlight fit Qwen/Qwen3-8B-GGUF --within 6GB   the best file of a repository
  pilotlight fit Qwen/Qwen3-8B-GGUF:Q4_K_M
"""

REPOSITORY = re.compile(r"https?://|hf://|[A-Za-z0-9][\w.-]*/[\w.-]+(?<!\.gguf)([:@].+)?$")
"""What nobody would take for a file that is not there."""


class Memory(click.ParamType["Amount"]):
    """An amount of memory, written as in the settings."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Amount":
        from pilotlight.registry.budget import Amount

        try:
            return Amount.parse(str(value))
        except ValueError as exc:
            self.fail(f"{value!r} {exc}", param, ctx)


@click.command("fit", epilog=EPILOG)
@click.argument("model", metavar="MODEL|OWNER/NAME", shell_complete=model_names)
@click.option("--context", type=click.IntRange(256, 2**24), metavar="N", help="Tokens it is to hold.")
@click.option("--within", type=Memory(), metavar="SIZE", help="Memory it may take.  [default: the budget]")
@click.option("--budget", type=click.IntRange(0), hidden=True, help="Bytes that the daemon has, which asks.")
@click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="The models.toml to read.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.pass_context
def command(ctx: click.Context, /, model: str, config: Path | None, as_json: bool, **wishes: Any) -> None:
    """Tell whether MODEL (a name, a GGUF file or a folder) fits this machine, and how fast it may be.

    Of the files of a repository on the Hugging Face hub (OWNER/NAME), tell which is the best that fits.
    """
    from pilotlight.cli import fit_report as report

    verdicts = list(_verdicts(model, resolve(config), **wishes))
    one, *others = verdicts
    if as_json:
        figures = [report.figures(verdict) for verdict in verdicts]
        click.echo(json.dumps(figures if others else figures[0], indent=2))
    else:
        click.echo(plain("\n".join(report.choice(model, verdicts) if others else report.lines(one))))
    ctx.exit(0 if any(verdict.fits for verdict in verdicts) else 1)


def _verdicts(
    name: str, config: "Config", context: int | None, within: "Amount | None", budget: int | None
) -> Iterator["Verdict"]:
    """Of the model, or of each file of the repository."""
    from pilotlight.cli.bandwidth import bytes_per_s
    from pilotlight.registry import memory
    from pilotlight.registry.budget import Budget
    from pilotlight.registry.fit import Machine, judge

    subjects = _subjects(name, config)
    found, speed = memory.read(), bytes_per_s()
    asked = Budget.parse(config.memory.budget, config.memory.reserve)
    if within:
        asked = replace(asked, amount=within)
    is_set = asked.amount is not None
    if not is_set and budget is None:
        budget = _budget_of_daemon(config)
    available = asked.now(found, 0) if is_set or budget is None else budget
    reserved = 0 if is_set else asked.reserve.of(found.bytes_total)
    for subject in subjects:
        most = available if within else min(available, subject.memory or available)
        machine = Machine(found.bytes_total, most, speed, is_set or most < available, reserved)
        yield judge(subject, machine, context or 0)


def _budget_of_daemon(config: "Config") -> int | None:
    """What a daemon that runs with our state directory has: it knows which programs are its own workers. None
    where none answers."""
    from pilotlight.registry.discovery import Discovery

    if (running := Discovery(config.state_dir).read()) is not None:
        from pilotlight.cli.client import Client, key_for

        with suppress(Error):
            return Client(running.url, key_for(running.url, config)).memory()["budget"]
    return None


def _subjects(name: str, config: "Config") -> list["Subject"]:
    """A file or folder, else a model that is known, else files on the hub. Raises `Error`."""
    from pilotlight.config import model_at
    from pilotlight.registry.ladder import Ladder
    from pilotlight.registry.reader import HeaderError
    from pilotlight.sources import absolute

    ladder = Ladder(config.state_dir)
    path = absolute(Path(name))
    try:
        if path.exists():
            return [_subject(model_at(config, path.name.removesuffix(".gguf"), path), ladder)]
        known = catalog(config)
        if REPOSITORY.match(name) and not any(name in (one.name, *one.aliases) for one in known):
            return _on_the_hub(name, ladder)
        return [_subject(known.get(name), ladder)]
    except HeaderError as exc:
        raise Error(f"{name}: {exc}") from exc
    except OSError as exc:
        raise Error(f"{name} cannot be read: {exc.strerror}") from exc


def _on_the_hub(name: str, ladder: "Ladder") -> list["Subject"]:
    from pilotlight.registry.subjects import of_files
    from pilotlight.store.reference import HubReference, parse
    from pilotlight.store.remote import header_of, models_of

    reference = parse(name)
    if not isinstance(reference, HubReference):
        raise Error(f"{name} is no repository of the hub: pull it, then ask again")
    remotes = models_of(reference)
    sizes = {one.file: one.num_bytes for one in remotes}
    return list(of_files(sizes, header_of(reference, remotes[0]), ladder.modes("llamacpp")[0]))


def _subject(model: "Model", ladder: "Ladder") -> "Subject":
    from pilotlight.registry.subjects import subject

    found = subject(model, ladder.modes(model.runtime)[0])
    return replace(found, context=model.context, memory=model.memory)
