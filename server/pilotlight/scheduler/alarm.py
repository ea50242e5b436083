"""What the loop sleeps by: somebody rings, or it is time.

Single event loop, one sleeper. Each request goes by here twice, so it is a bare future and a timer, where an
`anyio.Event` in a cancel scope would be thirty calls.
"""

import asyncio
import math


class Alarm:
    """Rings once for all who ring before somebody has woken up."""

    def __init__(self) -> None:
        self._is_rung = False
        self._sleeper: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake who sleeps, or else let who comes next not sleep."""
        self._is_rung = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def sleep(self, until: float) -> None:
        """Until it rings, or until that time of the event loop's clock; `math.inf` is no time.

        Lets others run also if it has rung already.
        """
        if self._is_rung:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            self._sleeper = loop.create_future()
            timer = loop.call_at(until, self.ring) if until < math.inf else None
            try:
                await self._sleeper
            finally:
                if timer is not None:
                    timer.cancel()
        self._is_rung = False
