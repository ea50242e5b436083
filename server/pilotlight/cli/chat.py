"""A conversation on the terminal: lines in, streamed answers out, history in memory only."""

import sys
from collections.abc import Generator
from contextlib import closing, suppress

import click

from pilotlight.cli.client import Client, Piece
from pilotlight.cli.loading import loading
from pilotlight.cli.terminal import is_terminal, plain
from pilotlight.errors import Error

HELP = """\
/clear  forget the conversation
/bye    leave (or Ctrl-D)
/help   this text
Ctrl-C  stop the answer"""


class Chat:
    """Owns the history of one conversation with one model, and writes nothing of it to disk."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._history: list[dict[str, str]] = []

    def ask(self, question: str) -> None:
        """Print the answer as it comes and remember both, also what was said before Ctrl-C or an `Error`."""
        if not _is_text(question):
            raise Error("the question has bytes that are no text in this terminal's encoding")
        said: list[str] = []
        is_cut = False
        is_seen = is_terminal(sys.stdout)
        messages = [*self._history, {"role": "user", "content": question}]
        try:
            with closing(self._answer(messages)) as pieces:
                for piece in pieces:
                    said.append(piece.text)
                    is_cut = piece.is_cut
                    # With `color`, click takes nothing out: a program gets what the model said.
                    click.echo(plain(piece.text) if is_seen else piece.text, nl=False, color=True)
        finally:
            if said:
                click.echo()
                self._history = [*messages, {"role": "assistant", "content": "".join(said)}]
        if is_cut:
            click.echo("the answer was cut, at a limit of its tokens or of the conversation", err=True)

    def clear(self) -> None:
        self._history = []

    def _answer(self, messages: list[dict[str, str]]) -> Generator[Piece]:
        body = {"model": self._model, "messages": messages, "stream": True}
        with closing(self._client.chat(body)) as pieces, loading(self._client, self._model) as bar:
            for piece in pieces:
                bar.stop()
                yield piece


def talk(chat: Chat) -> None:
    """Questions from the terminal until Ctrl-D or /bye."""
    with suppress(ImportError):
        import readline  # noqa: F401  line editing for input(); Windows' console has its own
    click.echo("/help for help, Ctrl-D to leave", err=True)
    while (line := _line()) is not None:
        match line.strip():
            case "":
                continue
            case "/bye":
                return
            case "/clear":
                chat.clear()
            case "/help":
                click.echo(HELP, err=True)
            case question if question.startswith("/") and " " not in question:
                click.echo(f"pilotlight: no command {question}; /help lists them", err=True)
            case question:
                _ask(chat, question)


def _ask(chat: Chat, question: str) -> None:
    try:
        chat.ask(question)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    except Error as error:
        click.echo(plain(f"pilotlight: {error.message}"), err=True)


def _is_text(words: str) -> bool:
    """Bytes that are none in the terminal's encoding come as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in words)


def _line() -> str | None:
    """The next line; None at the end of input. Ctrl-C on the prompt drops what was typed."""
    try:
        if is_terminal(sys.stdout):
            return input(">>> ")
        # What is piped on is what the model says.
        click.echo(">>> ", nl=False, err=True)
        return input()
    except KeyboardInterrupt:
        click.echo(err=True)
        return ""
    except UnicodeDecodeError as error:
        click.echo(f"pilotlight: the line is no {error.encoding} text: {error.reason}", err=True)
        return ""
    except EOFError:
        click.echo(err=True)
        return None
