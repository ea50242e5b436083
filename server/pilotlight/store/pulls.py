"""The daemon's pulls: each goes on as long as somebody follows it; who asks for the same follows the same.

Knows nothing of HTTP. Single event loop.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from pilotlight.errors import Error, PullFailed, ShuttingDown
from pilotlight.store.events import Done, Event, Failed, Job, Resolved
from pilotlight.store.pull import Puller, failure

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

BACKLOG = 1000
"""Events that somebody may be behind; who is further behind is left."""


class Running:
    """One pull and those who follow it."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self._resolved: Resolved | None = None
        self._followers: set[MemoryObjectSendStream[Event]] = set()

    @property
    def is_followed(self) -> bool:
        return bool(self._followers)

    def join(self) -> "tuple[MemoryObjectSendStream[Event], MemoryObjectReceiveStream[Event]]":
        """Hear everything from now on, and what is being pulled."""
        send, receive = anyio.create_memory_object_stream[Event](BACKLOG)
        if self._resolved is not None:
            send.send_nowait(self._resolved)
        self._followers.add(send)
        return send, receive

    def leave(self, send: "MemoryObjectSendStream[Event]") -> None:
        self._followers.discard(send)
        send.close()

    def say(self, event: Event) -> None:
        if isinstance(event, Resolved):
            self._resolved = event
        for send in tuple(self._followers):
            try:
                send.send_nowait(event)
            except anyio.WouldBlock:
                self.leave(send)

    def end(self, event: Done | Failed) -> None:
        """The last thing that is said."""
        self.say(event)
        for send in tuple(self._followers):
            self.leave(send)


class Pulls:
    """Owns the running pulls. `on_change` is called once a version is active, before its followers hear of
    it, also if there are none any more; `on_end` how each ended: `done`, `failed` or `stopped`."""

    def __init__(
        self, puller: Puller, on_change: Callable[[], Awaitable[None]], on_end: Callable[[str], None]
    ) -> None:
        self._puller = puller
        self._on_change = on_change
        self._on_end = on_end
        self._running: dict[Job, Running] = {}
        self._tasks: TaskGroup | None = None
        self._is_stopping = False

    async def run(self) -> None:
        """Until cancelled; then no download is left."""
        async with anyio.create_task_group() as self._tasks:
            await anyio.sleep_forever()

    @asynccontextmanager
    async def following(self, job: Job) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of this pull, the last one `Done` or `Failed`; without a follower it is cancelled."""
        running = self._running.get(job) or self._start(job)
        send, receive = running.join()
        if self._is_stopping:
            running.end(failure(ShuttingDown("the daemon is shutting down")))
        try:
            yield receive
        finally:
            running.leave(send)
            receive.close()
            if not running.is_followed:
                self._cancel(job, running)

    def stop(self) -> None:
        """Cancel all of them, and begin none: the daemon is stopping."""
        self._is_stopping = True
        for job, running in list(self._running.items()):
            self._cancel(job, running)

    def _start(self, job: Job) -> Running:
        assert self._tasks is not None, "it runs before the first request comes in"
        running = Running()
        if not self._is_stopping:
            self._running[job] = running
            self._tasks.start_soon(self._pull, job, running)
        return running

    def _cancel(self, job: Job, running: Running) -> None:
        """Who asks again from now on gets a pull of their own, which waits until this one has let go."""
        if self._running.get(job) is running:
            del self._running[job]
        running.scope.cancel()

    async def _pull(self, job: Job, running: Running) -> None:
        end: Done | Failed = failure(
            PullFailed("the pull was stopped; what has come is kept for the next one")
        )
        with running.scope:
            end = await self._puller.pull(job, running.say)
            if isinstance(end, Done):  # one that is not new another process may have activated
                end = await self._changed(end)
        if self._running.get(job) is running:
            del self._running[job]
        self._on_end("stopped" if running.scope.cancelled_caught else type(end).__name__.lower())
        running.end(end)

    async def _changed(self, end: Done) -> Done | Failed:
        try:
            # The store has it: who leaves meanwhile does not keep it from being served.
            with anyio.CancelScope(shield=True):
                await self._on_change()
        except Error as exc:  # the configuration has something for it that it cannot do
            return failure(exc)
        except OSError as exc:
            return failure(PullFailed(f"it is active, and the models cannot be looked at: {exc.strerror}"))
        return end
