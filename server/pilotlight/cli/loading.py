"""A progress bar on stderr while a model loads, for somebody who waits for its first word."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pilotlight.cli.client import Client
from pilotlight.errors import Error

PERIOD_S = 0.1


class Done(NamedTuple):
    """Of a load: how far it is, 0 to 1, and whether its end is that threads are measured."""

    fraction: float
    is_measuring: bool


class Bar:
    """Watches one model from a thread of its own until `stop`; draws only while it loads, on a terminal."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = Client(client.url, client.key)  # of its own: the other one is busy with the answer
        self._model = model
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take the bar off the screen; returns once it is gone."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(PERIOD_S):
            if (done := self._progress()) is not None:
                self._draw(done)

    def _draw(self, done: Done | None) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=1.0)
            while done is not None and not self._is_over.wait(PERIOD_S):
                what = "measuring threads for" if done.is_measuring else "loading"
                progress.update(task, completed=done.fraction, description=f"{what} {self._model}")
                done = self._progress()

    def _progress(self) -> Done | None:
        """None when nothing loads."""
        try:
            models = self._client.models()
            entry = next(one for one in models if self._model in (one["id"], *one.get("aliases", ())))
        except (Error, StopIteration):
            return None
        if entry.get("state") != "starting":
            return None
        return Done(entry.get("progress", 0.0), entry.get("is_measuring", False))


@contextmanager
def loading(client: Client, model: str) -> Iterator[Bar]:
    """Show the bar until it is stopped or the block ends."""
    bar = Bar(client, model)
    bar.start()
    try:
        yield bar
    finally:
        bar.stop()
