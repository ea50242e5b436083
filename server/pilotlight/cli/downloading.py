"""What a person or a program sees of a pull."""

from typing import Protocol, Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pilotlight.cli.terminal import plain
from pilotlight.store import events
from pilotlight.store.events import Event

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(binary_units=True),
    TransferSpeedColumn(),
    TimeRemainingColumn(compact=True),
)


class Watcher(Protocol):
    """Shows events until the end; `is_done` says how that was."""

    is_done: bool

    def show(self, event: Event) -> None: ...
    def stop(self) -> None: ...


class Lines:
    """Each event as a line of JSON on stdout."""

    def __init__(self) -> None:
        self.is_done = False

    def show(self, event: Event) -> None:
        self.is_done = isinstance(event, events.Done)
        click.echo(events.encode(event))

    def stop(self) -> None:
        """Nothing is left on the screen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Screen:
    """A bar on a terminal; lines on stderr, and the outcome on stdout, everywhere."""

    def __init__(self) -> None:
        self.is_done = False
        console = Console(stderr=True)
        self._bar = Progress(*COLUMNS, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None, visible=False)

    def show(self, event: Event) -> None:
        self.is_done = isinstance(event, events.Done)
        match event:
            case events.Resolved():
                self._say(_plan(event))
                done = event.bytes - event.bytes_missing
                self._bar.update(self._task, total=event.bytes or None, completed=done)
            case events.Progress(file, bytes_done, num_bytes):
                name = file if len(file) <= 40 else f"...{file[-37:]}"
                self._bar.update(
                    self._task, description=name, completed=bytes_done, total=num_bytes or None, visible=True
                )
            case events.Waiting(reason, seconds):
                self._say(f"{reason}; trying again in {seconds:.0f} s" if seconds is not None else reason)
            case events.Testing(model):
                self._bar.update(self._task, visible=False)
                self._say(f"{model}: testing whether it loads and answers")
            case events.Failed(message):
                self.stop()
                click.echo(plain(f"pilotlight: {message}"), err=True)
            case events.Done():
                self.stop()
                click.echo(plain(_outcome(event)))

    def stop(self) -> None:
        """Take the bar off the screen."""
        self._bar.stop()

    def _say(self, line: str) -> None:
        self._bar.console.print(plain(line), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _plan(event: events.Resolved) -> str:
    what = f"{event.model}, version {event.version}"
    if not event.bytes:
        return what
    files = f"{event.num_files} files, " if event.num_files > 1 else ""
    left = "nothing" if not event.bytes_missing else _mib(event.bytes_missing)
    return f"{what}: {files}{_mib(event.bytes)}, {left} to download"


def _outcome(event: events.Done) -> str:
    kept = f" (the previous one, {event.previous}, is kept)" if event.previous else ""
    lines = [
        f"{event.model}: version {event.version} {'is active' if event.is_new else 'is the newest'}{kept}"
    ]
    return "\n".join([*lines, *([f"warning: {event.warning}"] if event.warning else [])])


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
