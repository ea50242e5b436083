"""`pilotlight completion`: the script that teaches a shell to complete our commands and model names."""

import click
from click.shell_completion import get_completion_class

EPILOG = """\b
Examples:
  pilotlight completion bash >> ~/.bashrc
  pilotlight completion zsh >> ~/.zshrc
  pilotlight completion fish > ~/.config/fish/completions/pilotlight.fish
"""


@click.command("completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "pilotlight", "_PILOTLIGHT_COMPLETE").source())
