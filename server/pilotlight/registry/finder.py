"""Adds the models found in stores to the configured ones: the same bytes are one model, whatever their names.

A folder is the same model only where it is the same folder: what lies beside equal weights may differ.

Knows what there is, not what is loaded.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.config import Config, found_model, model_at
from pilotlight.core import Model
from pilotlight.registry.formats import runtime_of
from pilotlight.registry.stores.digests import digests_of
from pilotlight.registry.stores.found import Found, Skipped
from pilotlight.registry.stores.places import Place
from pilotlight.registry.stores.weights import weights_of
from pilotlight.runtimes.capabilities import is_installed

if TYPE_CHECKING:
    from pilotlight.registry.stores.scan import Scan

log = structlog.get_logger()


class Finder:
    """Remembers the last look into the stores until one of them changes. Blocks; for one thread at a time."""

    def __init__(self, places: Sequence[Place] = (), config: Config | None = None) -> None:
        self._places = places
        self._config = config or Config()
        self._scan: Scan | None = None
        self._configured: tuple[Model, ...] | None = None
        self._models: tuple[Model, ...] = ()
        self.skipped: tuple[Skipped, ...] = ()
        """What looks like a model and is not used."""

    @property
    def is_current(self) -> bool:
        """Another look into the stores would show what the last one did. Any thread may ask."""
        return self._scan is not None and self._scan.is_current

    def anew(self, model: Model) -> Model:
        """A configured model as it is now. Raises `ConfigError` if it cannot be what its settings say."""
        return replace(model_at(self._config, model.name, model.path), aliases=model.aliases)

    def complete(self, configured: tuple[Model, ...]) -> tuple[Model, ...]:
        """All models: the configured ones, with the aliases that stores have for them, then the others.

        The same object as last time if nothing has changed.
        """
        if self.is_current and self._configured is configured:
            return self._models
        # Only now: a daemon that nobody asks for such models starts sooner.
        from pilotlight.registry.stores.scan import scan

        started_s = time.perf_counter()
        looked, merged = scan(self._places), _Merge(configured, self._config)
        for found in looked.found:
            merged.add(found)
        self._scan, self._configured, self._models = looked, configured, merged.models
        self.skipped = (*looked.skipped, *merged.skipped)
        for skipped in self.skipped:
            log.debug("model not used", store=skipped.store, path=str(skipped.path), reason=skipped.reason)
        log.info(
            "looked for models",
            found=len(looked.found),
            not_used=len(self.skipped),
            duration_s=round(time.perf_counter() - started_s, 3),
        )
        return self._models


class _Identity(Struct, frozen=True):
    """Which bytes a model is: where its files are on disk, and their size and SHA-256 where that is known."""

    places: frozenset[tuple[int, int]]
    content: tuple[int, frozenset[str]] | None

    @classmethod
    def of(cls, files: Sequence[Path], digests: frozenset[str]) -> "_Identity":
        stats = [file.stat() for file in files]
        places = frozenset((found.st_dev, found.st_ino) for found in stats)
        return cls(places, (sum(found.st_size for found in stats), digests) if digests else None)


def _identity_at(path: Path) -> _Identity:
    """Of a model that is configured; of files that go just now, nothing is known."""
    try:
        files = _files(path, weights_of(path))
        return _Identity.of(files, digests_of(files))
    except OSError:
        return _Identity(frozenset(), None)


def _files(path: Path, weights: Sequence[Path]) -> Sequence[Path]:
    """What makes a model the one it is: of a folder not only its weights but all of it, so itself."""
    return (path,) if path.is_dir() else weights


class _Merge:
    """The models so far, by name and by what they are."""

    def __init__(self, configured: Sequence[Model], config: Config) -> None:
        self._config = config
        self._by_name: dict[str, Model] = {}
        self._owner: dict[str, str] = {}
        self._known: dict[object, str] = {}
        self.skipped: list[Skipped] = []
        for model in configured:
            self._register(model, _identity_at(model.path))

    @property
    def models(self) -> tuple[Model, ...]:
        return tuple(self._by_name.values())

    def add(self, found: Found) -> None:
        """As a model of its own, or as an alias of the one that it is."""
        try:
            identity = _Identity.of(_files(found.path, found.weights), found.digests)
        except OSError as exc:
            self._skip(found, f"cannot be read: {exc.strerror}")
            return
        twin = self._known.get(identity.places) or self._known.get(identity.content)
        free = [name for name in found.names if name not in self._owner]
        # One that was chosen by another name than its best has both.
        names = [name for name in free if name in self._config.preload or name == free[0]]
        if not names:
            if self._owner[found.names[-1]] != twin:
                self._skip(found, f"another model is named {found.names[-1]!r}")
        elif twin is not None:
            model = self._by_name[twin]
            self._owner.update(dict.fromkeys(names, twin))
            self._by_name[twin] = replace(model, aliases=(*model.aliases, *names))
        elif not is_installed(runtime := runtime_of(found.path)):
            self._skip(found, f"needs {runtime}, which is not installed")
        else:
            name = min(names, key=lambda name: name not in self._config.preload)
            others = tuple(other for other in names if other != name)
            self._register(replace(found_model(found, name, self._config), aliases=others), identity)

    def _register(self, model: Model, identity: _Identity) -> None:
        self._by_name[model.name] = model
        for name in (model.name, *model.aliases):
            self._owner[name] = model.name
        if identity.places:
            self._known.setdefault(identity.places, model.name)
        if identity.content:
            self._known.setdefault(identity.content, model.name)

    def _skip(self, found: Found, reason: str) -> None:
        self.skipped.append(Skipped(found.store, found.path, reason))
