"""A pull without a daemon: with the parts of one that it needs, for as long as it takes."""

from collections.abc import Callable
from functools import partial

import anyio

from pilotlight.config import Config, model_at
from pilotlight.energy.ledger import Ledger
from pilotlight.errors import Error
from pilotlight.notices import Notices
from pilotlight.power.slowdown import Slowdown
from pilotlight.registry.budget import Budget
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.costs import Costs
from pilotlight.registry.estimate import Estimates
from pilotlight.registry.ladder import Ladder
from pilotlight.registry.loader import Loader
from pilotlight.scheduler.books import Books
from pilotlight.scheduler.loop import Loop
from pilotlight.store.events import Done, Event, Failed
from pilotlight.store.pull import Puller
from pilotlight.store.shelf import Shelf
from pilotlight.store.smoke import Smoke


async def pull(config: Config, wanted: str, report: Callable[[Event], None]) -> Done | Failed:
    """Report what happens, and return how it ended; no process is left. Raises `Error`."""
    shelf, loop = Shelf(config), _loop(config)
    job = shelf.job(wanted)
    puller = Puller(shelf.store, Smoke(loop), partial(model_at, config))
    outcome: list[Done | Failed | Error] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run)
        try:
            outcome.append(await puller.pull(job, report))
        except Error as error:
            # Kept out of the task group, which would wrap it in an ExceptionGroup.
            outcome.append(error)
        tasks.cancel_scope.cancel()
    (end,) = outcome
    if isinstance(end, Error):
        raise end
    return end


def _loop(config: Config) -> Loop:
    """With nothing to serve: only the new version will be loaded."""
    ladder = Ladder(config.state_dir)
    costs, notices = Costs(config.state_dir, ladder), Notices()
    loader = Loader(ladder, costs, notices, config.defaults.load_s)
    books = Books(Estimates(costs.known), Budget.parse(config.memory.budget, config.memory.reserve))
    return Loop(Catalog(()), loader, notices, books, 1, Slowdown(), Ledger(), _Blind())


class _Blind:
    """`Senses` that look at nothing: a few tokens are no work worth it."""

    async def begin(self) -> None:
        """Nobody decides by what it would see."""

    def end(self) -> None:
        """As it began."""
