"""Tells workers how to run what they have: what yields is held or goes on, and how many threads compute. And
the system, what they are beside other programs.
"""

from collections.abc import Callable, Collection

from pilotlight.core import Model, RequestClass
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.loader import Loader
from pilotlight.scheduler.books import Books, Residence
from pilotlight.scheduler.dispatches import Dispatches
from pilotlight.scheduler.holds import Holds
from pilotlight.worker.priority import Priority
from pilotlight.worker.protocol import Hold, MeasureThreads


class Steering:
    """Keeps in the books what each worker was told, and tells it only what is new."""

    def __init__(
        self, holds: Holds, dispatches: Dispatches, books: Books, catalog: Catalog, loader: Loader
    ) -> None:
        self._holds = holds
        self._dispatches = dispatches
        self._books = books
        self._catalog = catalog
        self._loader = loader

    def steer(self, awaited: Callable[[str], Collection[RequestClass]]) -> set[str]:
        """As things are now; see `Holds.is_held`. Returns the models whose workers are held."""
        urgent_models = self._dispatches.urgent_models
        clocks = self._holds.clocks(self._dispatches.classes)
        for name, at in self._books.items():
            if at.worker is not None:
                requests = self._dispatches.of(name)
                self._hold(at, self._holds.is_held(name, requests, urgent_models, awaited(name)))
                self._set_threads(name, at)
                self._set_priority(at, self._holds.priority(requests, clocks))
        return {name for name, at in self._books.items() if at.is_held}

    def wants_measured(self, model: Model) -> bool:
        """It matters how many of its threads are enough."""
        known = self._catalog.known(model.name) or model
        return model.capabilities.live_threads and (known.is_efficient or self._holds.wants_efficient)

    def measure(self, model: Model) -> None:
        """Have its worker find that out, which runs nothing now, if it matters and is not known."""
        worker = self._books[model.name].worker
        if worker is not None and self.wants_measured(model) and self._loader.may_measure(model.name):
            worker.send(MeasureThreads())

    def _hold(self, at: Residence, is_held: bool) -> None:
        if at.worker is not None and at.is_held is not is_held:
            at.is_held = is_held
            at.worker.send(Hold(is_held))

    def _set_threads(self, name: str, at: Residence) -> None:
        model, worker, info = at.model, at.worker, at.info
        if model is None or worker is None or info is None or not info.capabilities.live_threads:
            return
        enough = self._loader.enough_threads(name)
        told = self._holds.threads(self._dispatches.of(name), model, info.threads, enough)
        if told is not None and told != at.threads_told:
            at.threads_told = told
            worker.send(told)

    def _set_priority(self, at: Residence, priority: Priority) -> None:
        if at.worker is not None and at.priority is not priority:
            at.priority = priority
            at.worker.set_priority(priority)
