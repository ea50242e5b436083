"""The task between API, scheduler and workers, over fake workers."""

from typing import Any, cast

from anyio import wait_all_tasks_blocked as settle
from fake_effects import request
from fake_worker import FakeLoader, FakeWorker, model
from msgspec.structs import replace

from pilotlight.core import FinishReason, Model
from pilotlight.energy.ledger import Ledger
from pilotlight.notices import Notices
from pilotlight.power.saver import Wish
from pilotlight.power.slowdown import Slowdown
from pilotlight.registry.budget import Budget
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.estimate import Estimates
from pilotlight.registry.finder import Finder
from pilotlight.registry.loader import Loader
from pilotlight.scheduler.answer import Answer, Item
from pilotlight.scheduler.books import Books
from pilotlight.scheduler.loop import Loop
from pilotlight.worker.protocol import Done


class FakeSenses:
    """Remembers when there was work."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    async def begin(self) -> None:
        self._tell(True)

    def end(self) -> None:
        self._tell(False)

    def _tell(self, is_work: bool) -> None:
        if self.told[-1:] != [is_work]:
            self.told.append(is_work)


class Bench:
    """A loop over fake workers."""

    def __init__(self) -> None:
        self.loader = FakeLoader()
        self.notices = Notices(clock=lambda: 0.0)
        self.catalog = Catalog([model("a"), model("b")])
        # Fake workers are as large as this process, in which many tests have run.
        self.books = Books(Estimates(), Budget.parse("64GiB"))
        self.senses = FakeSenses()
        loader = cast(Loader, self.loader)
        self.slowdown = Slowdown()
        ledger = Ledger()
        self.wishes: list[Wish] = []
        hear = self.wishes.append
        self.loop = Loop(
            self.catalog, loader, self.notices, self.books, 4, self.slowdown, ledger, self.senses, hear
        )

    @property
    def worker(self) -> FakeWorker:
        """The latest."""
        return self.loader.workers[-1]

    async def running(self, id: str, **changes: Any) -> tuple[Answer, int]:
        """A request in its worker, and its number there."""
        answer = self.loop.submit(replace(request(id), **changes))
        await settle()
        return answer, self.worker.generates[-1].id

    async def replace(self, *models: Model) -> None:
        """Read other settings."""
        await self.catalog.replace(models, Finder())
        await settle()

    def codes(self) -> list[str]:
        return [notice.code for notice in self.notices]


async def read(answer: Answer) -> list[Item]:
    async with answer:
        return [item async for items in answer for item in items]


def done(number: int, index: int = 0) -> Done:
    return Done(number, index, FinishReason.STOP, 2, 1)
