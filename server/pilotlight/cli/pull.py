"""`pilotlight pull`: get a model, through the running daemon or without one."""

from typing import TYPE_CHECKING, Any

import click

from pilotlight.cli.options import daemon_options, is_address_given, model_names, resolve

if TYPE_CHECKING:
    from pilotlight.cli.client import Client
    from pilotlight.cli.downloading import Watcher
    from pilotlight.config import Config

EPILOG = """\b
Ctrl-C keeps what has come; the same command goes on with it. HF_TOKEN, HF_ENDPOINT and HF_HOME are honoured
(those of the daemon, if one runs).

\b
Examples:
  pilotlight pull Qwen/Qwen3-4B-GGUF:Q4_K_M      one quantization
  pilotlight pull someone/model-GGUF:small.gguf  one file
  pilotlight pull mlx-community/some-model-4bit  an MLX folder
  pilotlight pull https://host/model.gguf --sha256 4f0c...
  pilotlight pull qwen3-4b                       the source of a [[model]], or something newer
"""

STOPPED = 130


@click.command("pull", epilog=EPILOG)
@click.argument("model", metavar="NAME|REPO[:FILE|:QUANT]|URL", shell_complete=model_names)
@daemon_options
@click.option("--sha256", metavar="HEX", help="Of the file that the URL leads to.")
@click.option("--json", "as_json", is_flag=True, help="Print what happens as lines of JSON.")
@click.pass_context
def command(ctx: click.Context, /, model: str, sha256: str | None, as_json: bool, **arguments: Any) -> None:
    """Download MODEL, test it, and serve it from now on."""
    from pilotlight.cli.client import find
    from pilotlight.cli.downloading import Lines, Screen

    config = resolve(**arguments)
    wanted = f"{model}#sha256={sha256}" if sha256 else model
    client = find(config, is_address_given=is_address_given(arguments))
    with Lines() if as_json else Screen() as watcher:
        try:
            _pull(config, client, wanted, watcher)
        except KeyboardInterrupt:
            watcher.stop()
            click.echo("stopped; what has come is kept, and the same command goes on with it", err=True)
            ctx.exit(STOPPED)
    ctx.exit(0 if watcher.is_done else 1)


def _pull(config: "Config", client: "Client | None", wanted: str, watcher: "Watcher") -> None:
    """Tell the watcher all that happens, the end included."""
    if client is not None:
        for event in client.pull(wanted):
            watcher.show(event)
        return
    import anyio

    from pilotlight import log
    from pilotlight.cli.pulling import pull

    log.configure("warning")
    watcher.show(anyio.run(pull, config, wanted, watcher.show))
