"""What the HTTP routes need of the daemon; `daemon.Daemon` is the real one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pilotlight.api.keys import Keys
from pilotlight.config import Config
from pilotlight.core import MemoryStatus, ModelStatus, Request
from pilotlight.energy.ledger import Ledger
from pilotlight.metrics import Metrics
from pilotlight.notices import Notices
from pilotlight.power.sampling import Sampler
from pilotlight.power.saver import Saver
from pilotlight.registry.catalog import Catalog
from pilotlight.reload import Reloaded
from pilotlight.scheduler.answer import Answer
from pilotlight.scheduler.gate import Gate
from pilotlight.scheduler.pacer import Pacer
from pilotlight.settings import ClassesSettings
from pilotlight.store.pulls import Pulls
from pilotlight.store.shelf import Shelf

if TYPE_CHECKING:
    from pilotlight.batch.batches import Batches


class Service(Protocol):
    """The seam between HTTP and the rest."""

    @property
    def config(self) -> Config: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def classes(self) -> ClassesSettings:
        """As they were last read."""

    @property
    def preset(self) -> str:
        """Of the policy's rules, as it was last read."""

    @property
    def catalog(self) -> Catalog: ...
    @property
    def notices(self) -> Notices: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def gate(self) -> Gate: ...
    @property
    def power(self) -> Sampler: ...
    @property
    def energy(self) -> Ledger: ...
    @property
    def pacer(self) -> Pacer: ...
    @property
    def saver(self) -> Saver: ...
    @property
    def shelf(self) -> Shelf: ...
    @property
    def pulls(self) -> Pulls: ...
    @property
    def batches(self) -> "Batches": ...
    @property
    def is_ready(self) -> bool:
        """Able to serve: started and not stopping."""

    def submit(self, request: Request) -> Answer:
        """Queue a request. Raises `ModelNotFound` if its model is gone meanwhile; other refusals (`Busy`,
        `ShuttingDown`, ...) come out of the answer."""

    def standing(self, request: Request) -> str | None:
        """Why a submitted request does not run now, in a line for a person; None if it does."""

    def environ(self) -> dict[str, str]:
        """For another process of ours: the settings as last read, and of those that need a restart ours."""

    async def refresh(self) -> None:
        """Serve what is in the store now: Raises `ConfigError`."""

    async def reload(self) -> Reloaded:
        """Read the settings again. Raises `ConfigError` for a wrong one; nothing has changed then."""

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        """Have a known model loaded, in its turn; returns once it is. Raises what a request would hear."""

    async def unload(self, model: str) -> None:
        """End a known model's worker once it runs nothing; returns when its memory is free."""

    def memory(self) -> MemoryStatus:
        """The budget, and what of it is taken. Wakes nothing."""

    def status(self) -> Sequence[ModelStatus]:
        """One per model of the catalog, in its order. Wakes nothing."""
