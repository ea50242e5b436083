"""The daemon's pulls: who follows them, and what follows from them."""

import threading
from collections.abc import Awaitable, Callable
from typing import cast

import anyio
import pytest
from anyio import to_thread

from pilotlight.errors import ConfigError
from pilotlight.store.events import Done, Event, Failed, Job, Resolved
from pilotlight.store.pull import Puller
from pilotlight.store.pulls import Pulls

JOB = Job("owner/name", "", "/store", stall_s=1.0, retry_s=0.0)

DONE = Done("owner/name", "0123456789ab", None, is_new=True)


class Committing:
    """A puller that activates its version in a thread, which nobody can cancel, until it `may_end`."""

    def __init__(self, end: Done = DONE) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self._end = end

    async def pull(self, job: Job, report: Callable[[Event], None]) -> Done:
        report(Resolved(DONE.model, DONE.version, "", 1, 3, 0))
        await to_thread.run_sync(self._activate)
        return self._end

    def _activate(self) -> None:
        self.has_begun.set()
        self.may_end.wait(20)


async def pulled(
    puller: Committing, on_change: Callable[[], Awaitable[None]], *, leave: bool
) -> tuple[list[Event], str]:
    """All that its follower hears, unless they `leave` while it is activated, and how it is counted."""
    heard: list[Event] = []
    outcomes: list[str] = []
    over = anyio.Event()

    def count(outcome: str) -> None:
        outcomes.append(outcome)
        over.set()

    pulls = Pulls(cast(Puller, puller), on_change, count)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pulls.run)
        await anyio.wait_all_tasks_blocked()
        async with pulls.following(JOB) as events:
            await to_thread.run_sync(puller.has_begun.wait, 20)
            if not leave:
                puller.may_end.set()
                heard = [event async for event in events]
        puller.may_end.set()
        await over.wait()
        tasks.cancel_scope.cancel()
    (outcome,) = outcomes
    return heard, outcome


@pytest.mark.parametrize("is_new", [True, False])
async def test_what_is_active_is_served(is_new: bool, anyio_backend: str) -> None:
    """Before anybody hears of it; another process may have activated what is not new."""
    served = []

    async def serve() -> None:
        served.append(DONE.model)

    end = Done(DONE.model, DONE.version, None, is_new=is_new)
    heard, outcome = await pulled(Committing(end), serve, leave=False)
    assert (served, heard[-1], outcome) == ([DONE.model], end, "done")


async def test_who_leaves_while_it_is_activated_does_not_keep_it_from_being_served(
    anyio_backend: str,
) -> None:
    """The next pull would find nothing new, and tell nobody."""
    served = []

    async def serve() -> None:
        await anyio.lowlevel.checkpoint()
        served.append(DONE.model)

    _, outcome = await pulled(Committing(), serve, leave=True)
    assert (served, outcome) == ([DONE.model], "done")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("it cannot do that"), "it cannot do that"),
        (OSError(5, "Input/output error"), "the models cannot be looked at: Input/output error"),
    ],
)
async def test_what_cannot_be_served_ends_its_pull_only(
    error: Exception, message: str, anyio_backend: str
) -> None:
    """The reason is told."""

    async def refuse() -> None:
        raise error

    heard, outcome = await pulled(Committing(), refuse, leave=False)
    assert isinstance(end := heard[-1], Failed)
    assert (message in end.message, outcome) == (True, "failed")


async def test_no_pull_begins_while_the_daemon_stops(anyio_backend: str) -> None:
    """Its request was on its way; who asked hears so at once, and nothing is downloaded."""
    puller = Committing()
    pulls = Pulls(cast(Puller, puller), anyio.lowlevel.checkpoint, lambda outcome: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pulls.run)
        await anyio.wait_all_tasks_blocked()
        pulls.stop()
        async with pulls.following(JOB) as events:
            (end,) = [event async for event in events]
        tasks.cancel_scope.cancel()
    assert isinstance(end, Failed)
    assert (end.message, puller.has_begun.is_set()) == ("the daemon is shutting down", False)
