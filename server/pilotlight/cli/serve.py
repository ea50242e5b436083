"""`pilotlight serve`: arguments -> `Config` -> `daemon.main`."""

import gc
from typing import Any

import click

from pilotlight.cli.options import daemon_options, model_names, resolve

EPILOG = """\b
Every option is also a variable, PILOTLIGHT_PORT=0 is --port 0, and all but --config and --model are settings
of models.toml.
Flags win over the environment, which wins over models.toml.

\b
Exit codes:
  0  stopped as asked
  1  internal failure, or an address that this machine does not have
  2  bad configuration or arguments
  3  the port is in use, or not for this user
  4  forced by a second signal

\b
Examples:
  pilotlight serve
  pilotlight serve --model ~/models/qwen3-4b.gguf --context 8192
  pilotlight serve --memory-budget 4GiB
  pilotlight serve --port 0 --state-dir ./state
"""


@click.command("serve", epilog=EPILOG)
@daemon_options
@click.option(
    "--model",
    multiple=True,
    shell_complete=model_names,
    metavar="NAME|PATH",
    help="Load this model at start: one of models.toml, or a path, served under its name. Repeatable.",
)
@click.option(
    "--context", type=int, metavar="TOKENS", help="Context of each model; 0 lets the worker choose."
)
@click.option(
    "--parallel", type=int, metavar="N", help="Sequences per model at once; 0 lets the worker choose."
)
@click.option(
    "--threads",
    metavar="N|efficient",
    help="Threads per worker; 0 lets the worker choose, efficient finds out how few are enough.",
)
@click.option(
    "--memory-budget",
    metavar="BYTES|PART|auto",
    help="What all models together may take: 2GiB, 50%, or what others leave free.  [default: auto]",
)
@click.option(
    "--power-root",
    metavar="DIR",
    help="Read batteries and sensors below this folder, as if it were another machine's root.  [default: /]",
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
@click.pass_context
def command(ctx: click.Context, /, **arguments: Any) -> None:
    """Serve models on http://127.0.0.1:8710/v1 until SIGTERM or Ctrl-C."""
    # What importing makes stays for good: looking for garbage in it costs a tenth of the start, and later
    # more. Reading the settings imports a third of it.
    gc.disable()
    from pilotlight import log  # before anything that imports structlog, see there

    config = resolve(**arguments)
    from pilotlight import daemon

    gc.freeze()
    gc.enable()
    log.configure(config.server.log_level)
    ctx.exit(daemon.main(config))
