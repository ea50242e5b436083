"""Requests on their way to the scheduler.

Those for a model that is not loaded wait, in their order, until its file has been read for what it costs to
load it. What a disk does not answer in time they are told instead.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from pilotlight.core import Model, Request
from pilotlight.errors import Error
from pilotlight.registry.loader import LOOK_S, unanswered


class Arrivals:
    """Each request is asked for once, and never before one of the same model that came earlier."""

    def __init__(
        self,
        is_loaded: Callable[[str], bool],
        look_at: Callable[[Model], Awaitable[None]],
        ask: Callable[[Model, Request], None],
        fail: Callable[[Request, Error], None],
    ) -> None:
        self._is_loaded = is_loaded
        self._look_at = look_at
        self._ask = ask
        self._fail = fail
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
                with anyio.move_on_after(LOOK_S) as scope:
                    await self._look_at(model)
                if scope.cancelled_caught:
                    self._refuse(waiting, model.path)
                    continue
            if waiting:  # who waited was asked for if this was closed meanwhile
                self._ask(*waiting.popleft())
        del self._waiting[name]

    def _refuse(self, waiting: deque[tuple[Model, Request]], path: Path) -> None:
        """Those who would wait for the same disk; who came once the model was elsewhere stays in line."""
        arrived = list(waiting)
        waiting.clear()
        for model, request in arrived:
            if model.path == path:
                self._fail(request, unanswered(model))
            else:
                waiting.append((model, request))
