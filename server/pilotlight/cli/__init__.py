"""The command line: arguments -> `Config`, or one HTTP call to a running daemon.

A command's module is imported when the command is wanted, and imports only click at its top, so that `serve`
and completion start fast; what a command needs it imports when it runs.
"""

from importlib import import_module
from typing import Any

import click

from pilotlight import __version__
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


COMMANDS = {
    **{
        name: (name, "command")
        for name in (
            *("batch", "completion", "doctor", "energy", "fit", "ls", "policy"),
            *("ps", "pull", "run", "serve", "show", "simulate"),
        )
    },
    "load": ("load", "load"),
    "stop": ("load", "stop"),
    "rollback": ("shelf", "rollback"),
    "rm": ("shelf", "remove"),
    "prune": ("shelf", "prune"),
}
"""Where each command is: a module of this package, and its name there."""


class Failure(click.ClickException):
    """An `Error`, told to the person at the terminal in one line; exit code 1."""

    def show(self, file: Any = None) -> None:
        from pilotlight.cli.terminal import plain

        click.echo(plain(f"pilotlight: {self.message}"), err=True)


class Misuse(Failure):
    """A wrong setting or argument; exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """The commands, with our errors told in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # Where it is not found, click looks for the nearest name among all.
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            self.add_command(_imported(name))
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Misuse(error.message) from error
        except Error as error:
            raise Failure(error.message) from error


def _imported(name: str) -> click.Command:
    module, attribute = COMMANDS[name]
    command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
    return command


@click.group(cls=Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="pilotlight %(version)s")
def cli() -> None:
    """Pilotlight: a local, OpenAI-compatible inference daemon."""
