"""`pilotlight batch`: files of requests that the daemon runs in their own time."""

import codecs
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pilotlight.cli.load import json_option
from pilotlight.cli.options import daemon_options
from pilotlight.cli.terminal import is_terminal, plain
from pilotlight.errors import Error, NotFound

if TYPE_CHECKING:
    from pilotlight.cli.client import Client

EPILOG = """\b
A line of FILE is a request, as for OpenAI's Batch API:
  {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": ..., "messages": ...}}

\b
Examples:
  pilotlight batch submit questions.jsonl --wait
  pilotlight batch ls
  pilotlight batch output batch_6f0c... > answers.jsonl
  pilotlight batch rm batch_6f0c...     with its input and its answers
"""

COLUMNS = ("batch", "status", "answered", "errors", "model", "created")


def _batch_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion; without a daemon there are none."""
    from pilotlight.cli.client import found

    options = ("config", "host", "port", "state_dir")
    try:
        batches = found({name: ctx.params.get(name) for name in options}).batches()
    except Error:
        return []
    return [batch["id"] for batch in batches if batch["id"].startswith(incomplete)]


batch_argument = click.argument("batch_id", metavar="BATCH", shell_complete=_batch_ids)


@click.group("batch", epilog=EPILOG)
def command() -> None:
    """Run files of requests in their own time."""


@command.command("submit")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--window", default="24h", metavar="TIME", help="How long it may take: 24h, 7d.  [default: 24h]"
)
@click.option("--wait", is_flag=True, help="Show its progress until it is over.")
@json_option
@daemon_options
def submit(file: Path, window: str, wait: bool, as_json: bool, **arguments: Any) -> None:
    """Upload FILE and run its requests; Ctrl-C while waiting leaves it running."""
    from pilotlight.cli.client import found
    from pilotlight.cli.progress import follow

    client = found(arguments)
    with _readable_twice(file) as content:
        batch = _create(client, content, file.name, window)
    if wait:
        click.echo(f"{batch['id']} is submitted", err=True)
        batch = follow(client, batch)
    _print(batch, as_json)
    if wait and (batch["status"] != "completed" or batch["request_counts"]["failed"]):
        sys.exit(1)


@command.command("ls")
@json_option
@daemon_options
def ls(as_json: bool, **arguments: Any) -> None:
    """List the batches, newest first."""
    from pilotlight.cli.client import found
    from pilotlight.cli.tables import print_table

    batches = found(arguments).batches()
    if as_json:
        click.echo(json.dumps(batches, indent=2))
    else:
        print_table(COLUMNS, map(_row, batches))


@command.command("show")
@batch_argument
@json_option
@daemon_options
def show(batch_id: str, as_json: bool, **arguments: Any) -> None:
    """Show how a batch stands, and what is wrong with its file."""
    from pilotlight.cli.client import found

    _print(found(arguments).batch(batch_id), as_json)


@command.command("cancel")
@batch_argument
@json_option
@daemon_options
def cancel(batch_id: str, as_json: bool, **arguments: Any) -> None:
    """Stop a batch; what it has answered is kept."""
    from pilotlight.cli.client import found

    _print(found(arguments).cancel_batch(batch_id), as_json)


@command.command("output")
@batch_argument
@click.option(
    "--errors", is_flag=True, help="The requests that failed or did not run, instead of the answers."
)
@daemon_options
def output(batch_id: str, errors: bool, **arguments: Any) -> None:
    """Print the answers of a batch that is over, as lines of JSON in the order they were made."""
    from pilotlight.cli.client import found

    client = found(arguments)
    batch = client.batch(batch_id)
    file_id = batch["error_file_id" if errors else "output_file_id"]
    if file_id is None:
        raise Error(f"{batch_id} has no {'errors' if errors else 'answers'}: {_summary(batch)}")
    _write(client.content(file_id))


@command.command("rm")
@batch_argument
@json_option
@daemon_options
def remove(batch_id: str, as_json: bool, **arguments: Any) -> None:
    """Delete a batch that is over, with its answers and, if no other batch has it, its input."""
    from pilotlight.cli.client import found

    client = found(arguments)
    batch = client.batch(batch_id)
    client.delete("batches", batch_id)
    is_shared = any(other["input_file_id"] == batch["input_file_id"] for other in client.batches())
    if not is_shared:
        with suppress(NotFound):
            client.delete("files", batch["input_file_id"])
    done = {"id": batch_id, "deleted": True, "input_deleted": not is_shared}
    text = f"{batch_id} is deleted" + ("; its input is kept for another batch" if is_shared else "")
    click.echo(json.dumps(done, indent=2) if as_json else text)


def _write(content: Iterator[bytes]) -> None:
    """As it is, but for a terminal: models wrote it."""
    if is_terminal(sys.stdout):
        for text in codecs.iterdecode(content, "utf-8", "replace"):
            click.echo(plain(text), nl=False)
        return
    for piece in content:
        sys.stdout.buffer.write(piece)


def _readable_twice(file: Path) -> BinaryIO:
    """The file, or a copy of what comes through a pipe. Raises `Error` if there is no room for that."""
    # On macOS, what is opened in /dev again goes on where it was left.
    if file.is_file() and Path("/dev") not in file.parents:
        return file.open("rb")
    try:
        return _copy(file)
    except OSError as exc:
        raise Error(f"{file} cannot be copied to a temporary file: {exc.strerror}") from exc


def _copy(file: Path) -> BinaryIO:
    """Without a name: no prompt stays on the disk, whatever ends this program. Raises `OSError`."""
    from tempfile import TemporaryFile

    with ExitStack() as unless_whole:
        copy = unless_whole.enter_context(TemporaryFile())
        with file.open("rb") as source:
            shutil.copyfileobj(source, copy)
        copy.flush()
        unless_whole.pop_all()
    return copy


def _create(client: "Client", content: BinaryIO, name: str, window: str) -> dict[str, Any]:
    """The batch of what was uploaded; if it is refused, nothing stays."""
    endpoint = _endpoint(content)
    file_id = client.upload(content, name)["id"]
    try:
        return client.create_batch(file_id, endpoint, window)
    except Error:
        with suppress(Error):
            client.delete("files", file_id)
        raise


def _endpoint(content: BinaryIO) -> str:
    """What the first line asks; a wrong one is the daemon's to tell."""
    content.seek(0)
    first = content.readline(2**20)
    content.seek(0)
    try:
        return str(json.loads(first)["url"])
    except (ValueError, KeyError, TypeError):
        return "/v1/chat/completions"


def _print(batch: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(batch, indent=2))
        return
    click.echo(f"{batch['id']}: {_summary(batch)}")
    if "policy" in batch:
        click.echo(plain(f"  {batch['policy']['reason']}"))
    for error in (batch["errors"] or {"data": []})["data"]:
        where = f"line {error['line']}: " if error["line"] is not None else ""
        click.echo(plain(f"  {where}{error['message']}"))


def _summary(batch: dict[str, Any]) -> str:
    counts = batch["request_counts"]
    return (
        f"{batch['status']}, {counts['completed']} of {counts['total']} answered, {counts['failed']} errors"
    )


def _row(batch: dict[str, Any]) -> tuple[str, ...]:
    from datetime import datetime

    counts = batch["request_counts"]
    return (
        batch["id"],
        "waits" if "policy" in batch else batch["status"],
        f"{counts['completed']} of {counts['total']}",
        str(counts["failed"]),
        batch["model"] or "-",
        f"{datetime.fromtimestamp(batch['created_at']):%Y-%m-%d %H:%M}",
    )
