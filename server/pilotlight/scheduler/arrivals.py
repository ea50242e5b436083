"""Requests on their way to the scheduler.

Those for a model that is not loaded wait, in their order, until its file has been read for what it costs to
load it.
"""

from collections import deque
from collections.abc import Awaitable, Callable

from anyio.abc import TaskGroup

from pilotlight.core import Model, Request


class Arrivals:
    """Each request is asked for once, and never before one of the same model that came earlier."""

    def __init__(
        self,
        is_loaded: Callable[[str], bool],
        look_at: Callable[[Model], Awaitable[None]],
        ask: Callable[[Model, Request], None],
    ) -> None:
        self._is_loaded = is_loaded
        self._look_at = look_at
        self._ask = ask
        self._waiting: dict[str, deque[tuple[Model, Request]]] = {}
        """By their models."""
        self._is_closed = False

    def add(self, model: Model, request: Request, tasks: TaskGroup) -> None:
        """Ask for it now if nothing has to be known first, else from a task of that group."""
        waiting = self._waiting.get(model.name)
        if self._is_closed or (waiting is None and self._is_loaded(model.name)):
            self._ask(model, request)
        elif waiting is not None:
            waiting.append((model, request))
        else:
            self._waiting[model.name] = deque([(model, request)])
            tasks.start_soon(self._look, model.name)

    def close(self) -> None:
        """Ask at once for who waits, and for who comes: none will be loaded, and a look may never end."""
        self._is_closed = True
        for waiting in self._waiting.values():
            while waiting:
                self._ask(*waiting.popleft())

    async def _look(self, name: str) -> None:
        # One request after another, or a later one might be asked for first.
        waiting = self._waiting[name]
        while waiting:
            model, _ = waiting[0]
            if not self._is_loaded(name):
                await self._look_at(model)
            if waiting:  # who waited was asked for if this was closed meanwhile
                self._ask(*waiting.popleft())
        del self._waiting[name]
