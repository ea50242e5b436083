"""The stream of one request's answer, from whoever produces it to the one route that reads it.

Knows neither HTTP nor workers. Single event loop, one reader. Each token of a slow model finds the caches
cold, so its way is a short one: a bare future, where `anyio.Event` would be several calls more.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from pilotlight.core import Accepted, Chunk, Finished
from pilotlight.energy.accounts import Energy
from pilotlight.errors import Error

Item = Accepted | Chunk | Finished


class Answer:
    """What a request hears: `Accepted`, then `Chunk`s and one `Finished` per sequence, then the end.

    Each iteration brings all that has come since the last one; it raises the `Error` that ended the request,
    if one did. Leaving the `async with` block, by whatever way, releases the request exactly once: it is
    cancelled if it still runs.
    """

    def __init__(self, request_id: str, release: Callable[[], None]) -> None:
        self.request_id = request_id
        self.began_at: float | None = None
        """When its worker was given the request, by `time.perf_counter`; None while it waits."""
        self.energy: Energy | None = None
        """What it took; known once all is said."""
        self._release: Callable[[], None] | None = release
        self._items: list[Item] = []
        self._error: Error | None = None
        self._ended = False
        self._wake: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Producer: its worker has the request from now on."""
        self.began_at = time.perf_counter()

    def put(self, item: Item) -> None:
        """Producer: add an item. What comes after the release is dropped: nobody listens."""
        if self._release is not None:
            self._items.append(item)
            self._notify()

    def end(self, error: Error | None = None) -> None:
        """Producer: nothing more comes, because of `error` if given."""
        self._ended = True
        self._error = error
        self._notify()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the request; safe to call again."""
        release, self._release = self._release, None
        self._items.clear()
        if release is not None:
            release()

    def __aiter__(self) -> AsyncIterator[list[Item]]:
        return self

    async def __anext__(self) -> list[Item]:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        items, self._items = self._items, []
        return items

    def _notify(self) -> None:
        wake, self._wake = self._wake, None
        # Done if the reader was cancelled.
        if wake is not None and not wake.done():
            wake.set_result(None)
