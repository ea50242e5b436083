"""The models the daemon can serve, by name. Knows what there is, not what is loaded."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import anyio

from pilotlight.core import Model
from pilotlight.errors import ConfigError, ModelNotFound, NotPulled
from pilotlight.registry.finder import Finder
from pilotlight.registry.stores.found import Skipped
from pilotlight.registry.stores.weights import bytes_of, is_whole

MAX_SHOWN = 200
"""Characters of a name that nobody has."""

MAX_LISTED = 20
"""Names in an error: `pilotlight ls` has them all."""

ANSWER_S = 1.0
"""For a disk to say whether a model has come."""


class Catalog:
    """Owns the models: those configured, and, once somebody asked for them, those found in stores.

    Every name and alias belongs to one model. `unpulled` are the names of models that somebody configured by
    their source and that are not here yet. Single event loop.
    """

    def __init__(
        self, models: Iterable[Model], finder: Finder | None = None, unpulled: Iterable[str] = ()
    ) -> None:
        self._configured = self._models = tuple(models)
        self._finder = finder or Finder()
        self._by_name = _by_name(self._configured)
        self._unpulled = frozenset(unpulled)
        self._looking = anyio.Lock()
        self._asked: set[Path] = set()
        """Paths that threads are asking a disk for."""
        self._tell: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models)

    def get(self, name: str) -> Model:
        """The model of that name or alias. Raises `ModelNotFound` with the nearest one, or `NotPulled`."""
        if (model := self._by_name.get(name)) is not None:
            return model
        if name in self._unpulled:
            raise NotPulled(
                f"{name} is not on this machine yet; `pilotlight pull {name}` gets it", param="model"
            )
        shown = name[:MAX_SHOWN]
        if near := difflib.get_close_matches(shown, self._by_name, n=1, cutoff=0.5):
            hint = f"did you mean {near[0]!r}?"
        else:
            others = len(self._by_name) - MAX_LISTED
            listed = ", ".join(list(self._by_name)[:MAX_LISTED]) or "none"
            hint = f"there is: {listed}" + (f" and {others} more" if others > 0 else "")
        raise ModelNotFound(f"no model is named {shown!r}; {hint}", param="model")

    def known(self, name: str) -> Model | None:
        """The model that has this very name."""
        model = self._by_name.get(name)
        return model if model is not None and model.name == name else None

    @property
    def configured(self) -> tuple[Model, ...]:
        """Those that nobody had to look for."""
        return self._configured

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What looks like a model and is not used, as of the last look."""
        return self._finder.skipped

    @property
    def unpulled(self) -> tuple[str, ...]:
        """Names and aliases of models that are configured by their source, and not here yet."""
        return tuple(sorted(self._unpulled - self._by_name.keys()))

    def watch(self, tell: Callable[[], None]) -> None:
        """Have `tell` called whenever the models are others than before."""
        self._tell = tell

    async def find(self, name: str) -> Model:
        """As `get`, after a look into the stores if the name is not known yet, and at the model's files if
        they were not there."""
        if (model := self._by_name.get(name)) is None:
            await self.refresh()
        elif not model.bytes_disk:
            await self._look_for(model)
        return self.get(name)

    async def refresh(self) -> None:
        """Look into the stores if something there has changed; who asks meanwhile waits for the same look."""
        async with self._looking:
            await self._look(self._configured, self._finder)

    async def replace(self, models: Iterable[Model], finder: Finder, unpulled: Iterable[str] = ()) -> None:
        """Have others from now on. Raises `ConfigError` if two share a name; nothing has changed then."""
        configured = tuple(models)
        _by_name(configured)
        async with self._looking:
            await self._look(configured, finder)
            self._unpulled = frozenset(unpulled)

    async def _look_for(self, model: Model) -> None:
        """Whether its files have come. Raises `ConfigError` if they are none that its settings are for."""
        if not await self._has_come(model.path):
            return
        async with self._looking:
            known = next((one for one in self._configured if one.name == model.name), None)
            if known is not None and not known.bytes_disk:
                found = await anyio.to_thread.run_sync(self._finder.anew, known)
                configured = tuple(found if one is known else one for one in self._configured)
                await self._look(configured, self._finder)

    async def _has_come(self, path: Path) -> bool:
        """False if the disk does not answer; while one thread waits for it no other is sent."""

        def look() -> bool:
            self._asked.add(path)  # not sooner: a thread that is given up before it begins never runs
            try:
                return is_whole(path) and bytes_of(path) > 0
            finally:
                self._asked.discard(path)

        if path not in self._asked:
            with anyio.move_on_after(ANSWER_S):
                return await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
        return False

    async def _look(self, configured: tuple[Model, ...], finder: Finder) -> None:
        models = await anyio.to_thread.run_sync(finder.complete, configured)
        if models is not self._models:
            self._models, self._by_name = models, _by_name(models)
            self._tell()
        self._configured, self._finder = configured, finder


def _by_name(models: Iterable[Model]) -> dict[str, Model]:
    """Raises `ConfigError` if two models share a name."""
    by_name: dict[str, Model] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if by_name.setdefault(name, model) is not model:
                raise ConfigError(f"two models are named {name!r}: {by_name[name].path} and {model.path}")
    return by_name
