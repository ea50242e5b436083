"""The command line: arguments -> `Config`, or one HTTP call to a running daemon.

Command modules import only click at their top, so that `--help`, completion and `serve` start fast;
what a command needs it imports when it runs.
"""

from typing import Any

import click

from pilotlight import __version__
from pilotlight.cli import (
    batch,
    completion,
    doctor,
    energy,
    fit,
    load,
    ls,
    policy,
    ps,
    pull,
    run,
    serve,
    shelf,
    show,
    simulate,
)
from pilotlight.errors import ConfigError, Error

EXAMPLES = """\b
Examples:
  pilotlight serve                       serve the built-in model and those of models.toml
  pilotlight serve --model ./qwen3.gguf  serve any GGUF file
  pilotlight run                         chat with the built-in model
  pilotlight run pilot "What can you do?"
  pilotlight pull Qwen/Qwen3-4B-GGUF:Q4_K_M
  pilotlight ls                          all models there are
  pilotlight ps                          what is loaded and what it costs
  pilotlight load qwen3-4b               load it before anybody asks; `stop` unloads it
  pilotlight batch submit FILE.jsonl     run a file of requests in their own time
"""


class Failure(click.ClickException):
    """An `Error`, told to the person at the terminal in one line; exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"pilotlight: {self.message}", err=True)


class Misuse(Failure):
    """A wrong setting or argument; exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """The commands, with our errors told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Misuse(error.message) from error
        except Error as error:
            raise Failure(error.message) from error


@click.group(cls=Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="pilotlight %(version)s")
def cli() -> None:
    """Pilotlight: a local, OpenAI-compatible inference daemon."""


for module in (serve, run, pull, ls, show, ps, policy, energy, fit, batch, doctor, simulate, completion):
    cli.add_command(module.command)
for command in (load.load, load.stop, shelf.rollback, shelf.remove, shelf.prune):
    cli.add_command(command)
