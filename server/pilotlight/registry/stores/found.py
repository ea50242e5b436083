"""What a look into the stores gives: models, and what was passed over and why. Values only."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from pilotlight.registry.stores.places import Store


class Found(Struct, frozen=True):
    """A model that is there, complete as far as names and sizes tell."""

    store: Store
    names: tuple[str, ...]
    """What it may be called, the best first: a name may be taken by another."""
    path: Path
    """What a runtime loads: a file, the first of several, or a folder."""
    weights: tuple[Path, ...]
    """The files that hold its numbers; of a folder not all that a runtime reads."""
    digests: frozenset[str] = frozenset()
    """SHA-256 of each of the weights, where the store knows them all; of a folder none, as it is more than
    them."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Values that the store has for requests that leave them out."""


class Skipped(Struct, frozen=True):
    """Something that looks like a model and is not used, for the reason given."""

    store: Store
    path: Path
    reason: str
