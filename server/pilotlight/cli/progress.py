"""A progress bar on stderr while somebody waits for a batch."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pilotlight.cli.client import Client

PERIOD_S = 0.5
OVER = ("completed", "failed", "expired", "cancelled")


def follow(client: Client, batch: dict[str, Any]) -> dict[str, Any]:
    """Until the batch is over; returns it. Drawn only on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(batch["status"], total=None)
        while batch["status"] not in OVER:
            time.sleep(PERIOD_S)
            batch = client.batch(batch["id"])
            counts = batch["request_counts"]
            done = counts["completed"] + counts["failed"]
            progress.update(task, description=batch["status"], total=counts["total"] or None, completed=done)
    return batch
