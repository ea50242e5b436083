"""What it takes to load each model, and what memory there is for it: told to the scheduler whenever that may
have changed.

What asks a disk are tasks; what they find out comes back as events.
"""

import math
from collections.abc import Callable

import anyio
import structlog
from anyio.abc import TaskGroup

from pilotlight.core import Model
from pilotlight.errors import Error, Unreachable
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.loader import LOOK_S, Loader, unanswered
from pilotlight.scheduler.books import MEASURE_EVERY_S, Books
from pilotlight.scheduler.residency import Needs
from pilotlight.scheduler.scheduler import Scheduler

log = structlog.get_logger()


class Surveys:
    """`post` hands an event to the loop."""

    def __init__(
        self,
        scheduler: Scheduler,
        books: Books,
        catalog: Catalog,
        loader: Loader,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._scheduler = scheduler
        self._books = books
        self._catalog = catalog
        self._loader = loader
        self._post = post
        self._budget_taken_at = -math.inf

    def take(self, model: Model) -> None:
        """What it takes to load it, as far as that was looked at, and what there is."""
        self._books[model.name].surveyed = model
        self.take_budget()
        self._scheduler.on_needs(model.name, self._books.needs(model))

    def take_budget(self) -> None:
        """What there is: other programs come and go."""
        self._budget_taken_at = anyio.current_time()
        self._scheduler.on_budget(self._books.room())

    def renew_budget(self) -> None:
        """The same, if that was not looked at for a while; a look takes 0.4 ms."""
        if anyio.current_time() - self._budget_taken_at > MEASURE_EVERY_S:
            self.take_budget()

    def give_up(self, model: Model) -> None:
        """Nobody knows what it takes, as its disk does not answer: who waits hears so."""
        self._scheduler.on_needs(model.name, Needs(refusal=unanswered(model)))

    def renew(self, model: Model, tasks: TaskGroup | None) -> None:
        """It may be another: who waits until there is room for it waits for as much as it takes now."""
        at = self._books[model.name]
        is_waited_for = at.life is None and self._scheduler.line(model.name).queue
        if is_waited_for and at.surveyed is not None and not model.is_loaded_as(at.surveyed):
            assert tasks is not None, "the loop runs before the first request comes in"
            tasks.start_soon(self._look_again, model)

    async def look_at(self, model: Model) -> bool:
        """Its files, before it is surveyed; False if their disk does not answer."""
        with anyio.move_on_after(LOOK_S):
            await self._loader.look_at(model)
            return True
        return False

    async def find_anew(self, model: Model, error: Error) -> None:
        """A found model could not be loaded: its store may have another version by now, in another place."""
        is_found = self._catalog.known(model.name) not in (None, *self._catalog.configured)
        # Where the disk does not answer, a look at all stores would wait for it, too.
        if not is_found or isinstance(error, Unreachable):
            return
        try:
            await self._catalog.refresh()
        except (Error, OSError) as exc:
            log.warning("models cannot be looked for", error=str(exc))

    async def _look_again(self, model: Model) -> None:
        await self._loader.look_at(model)
        self._post(lambda: self._take_again(model))

    def _take_again(self, model: Model) -> None:
        """Unless its settings have changed meanwhile: then they were looked at, too, or are known."""
        now = self._books[model.name].model
        if now is not None and now.is_loaded_as(model):
            self.take(model)
