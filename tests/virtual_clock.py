"""An event loop whose clock jumps to whatever is due next: a day passes in no time."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

GRACE_S = 0.02
"""Real seconds that threads get to report before the clock jumps."""


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Instead of waiting it lets the time pass."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            return super().select(5)
        found = super().select(min(timeout, GRACE_S))
        if not found and timeout > 0:
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtual(main: Callable[[], Awaitable[None]]) -> None:
    """Run it to its end; sleeping takes no time."""
    anyio.run(main, backend_options={"loop_factory": _Loop})
