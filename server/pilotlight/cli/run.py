"""`pilotlight run`: talk to a model in the terminal."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pilotlight.cli.options import daemon_options, is_address_given, model_names, resolve
from pilotlight.cli.terminal import is_terminal
from pilotlight.errors import Error

if TYPE_CHECKING:
    from pilotlight.cli.client import Client

EPILOG = """\b
Without a running daemon it starts one of its own and ends it afterwards. It keeps no history; whether the
daemon keeps conversations, to go on with them fast, is a setting: conversations in [memory].

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

    file = model if model and os.path.isfile(os.path.expanduser(model)) else None
    config = resolve(**arguments, model=(file,) if file else ())
    if file and not any(_is_same(one.path, file) for one in config.models if one.name in config.preload):
        file = None  # it is a name all the same
    if not question and not is_terminal(sys.stdin):
        question = _piped(model)
    with session(config, file, is_address_given=is_address_given(arguments)) as client:
        chat = Chat(client, _served(client, config.preload[0], file) if file else model or _first(client))
        if question:
            chat.ask(question)
        else:
            talk(chat)


def _served(client: "Client", name: str, file: str) -> str:
    """The name, if what the daemon serves under it is this file."""
    try:
        path = client.show(name)["path"]
    except Error as error:
        # A daemon whose admin key we do not have tells nobody of files: the name has to do.
        if any(name == model["id"] for model in client.models()):
            return name
        raise Error(f"{client.url} does not serve {file}: {error.message}") from error
    if not _is_same(path, file):
        raise Error(f"{client.url} does not serve {file}: its {name} is {path}")
    return name


def _is_same(path: Path | str | None, file: str) -> bool:
    """As a daemon writes them: a name that is no text reads the same as another."""
    from pilotlight.registry.description import written

    ours = os.path.realpath(os.path.expanduser(file))
    return path is not None and written(Path(os.path.realpath(path))) == written(Path(ours))


def _first(client: "Client") -> str:
    """The name of the model that the daemon lists first."""
    for model in client.models():
        return str(model["id"])
    raise Error(f"{client.url} has no models; `pilotlight pull` gets one")


def _piped(model: str | None) -> str:
    """All of standard input. Raises `Error` if nothing is asked there."""
    try:
        piped = sys.stdin.read().strip() if sys.stdin else ""
    except UnicodeDecodeError as error:
        raise Error(f"what is piped in is no {error.encoding} text: {error.reason}") from error
    if not piped:
        taken = f"; {model!r} was taken for the MODEL, which comes first" if model else ""
        raise Error(f"nothing was asked: give a QUESTION, or pipe one in{taken}")
    return piped
