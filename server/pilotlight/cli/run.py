"""`pilotlight run`: talk to a model in the terminal."""

import sys
from pathlib import Path
from typing import Any

import click

from pilotlight.cli.options import daemon_options, is_address_given, model_names, resolve

EPILOG = """\b
Without a running daemon it starts one of its own and ends it afterwards. What is said is written nowhere.

\b
Examples:
  pilotlight run                           chat with the built-in model
  pilotlight run qwen3-4b                  chat with a model of models.toml
  pilotlight run ./stories260K.gguf        chat with a file
  pilotlight run pilot "What can you do?"  one answer
  echo "My name is Ada." | pilotlight run
"""


@click.command("run", epilog=EPILOG)
@click.argument("model", required=False, shell_complete=model_names)
@click.argument("question", required=False)
@daemon_options
def command(model: str | None, question: str | None, **arguments: Any) -> None:
    """Chat with MODEL, or ask it one QUESTION."""
    from pilotlight.cli.chat import Chat, talk
    from pilotlight.cli.session import session

    file = model if model and Path(model).expanduser().is_file() else None
    config = resolve(**arguments, model=(file,) if file else ())
    with session(config, file, is_address_given=is_address_given(arguments)) as client:
        chat = Chat(client, config.preload[0] if file else model or client.models()[0]["id"])
        if question := question or _piped():
            chat.ask(question)
        elif sys.stdin.isatty():
            talk(chat)


def _piped() -> str | None:
    """All of standard input when it is no terminal."""
    return None if sys.stdin.isatty() else sys.stdin.read().strip()
