"""An event loop whose clock jumps to whatever is due next: a day passes in no time."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock, patch

import anyio
from anyio import to_thread

GRACE_S = 0.1
"""Real seconds that a thread at work gets to report before the clock jumps."""


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Instead of waiting it lets the time pass."""

    now = 0.0
    num_at_work = 0
    """Calls that wait for a thread."""

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            return super().select(5)
        found = super().select(min(timeout, GRACE_S if self.num_at_work else 0))
        if not found and timeout > 0:
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def run_virtual(main: Callable[[], Awaitable[None]]) -> None:
    """Run it to its end; sleeping takes no time."""
    loop = _Loop()
    run_sync = to_thread.run_sync

    async def counted(*arguments: Any, **options: Any) -> Any:
        loop.jumping.num_at_work += 1
        try:
            return await run_sync(*arguments, **options)
        finally:
            loop.jumping.num_at_work -= 1

    with patch.object(to_thread, "run_sync", counted):
        anyio.run(main, backend_options={"loop_factory": lambda: loop})


@contextmanager
def scheduled() -> Iterator[Mock]:
    """The running loop's `call_soon`, which hears of each task that is woken; for code that does not wait."""
    loop = asyncio.get_running_loop()
    with patch.object(loop, "call_soon", wraps=loop.call_soon) as call_soon:
        yield call_soon
