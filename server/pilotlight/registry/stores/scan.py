"""One look into all stores. Blocks; meant for a thread."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.registry.stores import folders, huggingface, ollama
from pilotlight.registry.stores.found import Found, Skipped
from pilotlight.registry.stores.names import LONGEST_NAME
from pilotlight.registry.stores.places import Place, Store
from pilotlight.registry.stores.tree import Mark, Tree, is_current

FINDERS: dict[Store, Callable[[Tree], Iterator[Found]]] = {
    "folder": folders.find_own,
    "huggingface": huggingface.find,
    "ollama": ollama.find,
    "lmstudio": folders.find_lmstudio,
}

log = structlog.get_logger()


class Scan(Struct, frozen=True):
    """What was there, in the order of the places, and what of it was looked at."""

    found: tuple[Found, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    marks: Mapping[str, Mark] | None = None

    @property
    def is_current(self) -> bool:
        """Looking again would show the same; false for one that never looked."""
        return self.marks is not None and is_current(self.marks)


def scan(places: Sequence[Place]) -> Scan:
    """Look into every place. A link may lead from one into another, and nowhere else.

    Whatever is in one of them, the others are looked into.
    """
    allowed = [Path(os.path.realpath(place.path)) for place in places]
    found: list[Found] = []
    skipped: list[Skipped] = []
    marks: dict[str, Mark] = {}
    for place in places:
        tree = Tree(place, allowed)
        try:
            found += _well_named(tree, FINDERS[place.store](tree))
        except Exception as exc:  # our own bug; it must not cost the models of all other places
            log.exception("a place was not searched to its end", store=place.store, path=str(place.path))
            tree.skip(place.path, f"was not searched to its end: {type(exc).__name__}")
        skipped += tree.skipped
        marks |= tree.marks
    return Scan(tuple(found), tuple(skipped), marks)


def _well_named(tree: Tree, found: Iterator[Found]) -> Iterator[Found]:
    """Those with a name that a model may have, and only those names."""
    for one in found:
        if names := tuple(name for name in one.names if 0 < len(name) <= LONGEST_NAME and name.isprintable()):
            yield replace(one, names=names)
        elif any(len(name) > LONGEST_NAME for name in one.names):
            tree.skip(one.path, f"would have a name of more than {LONGEST_NAME} characters")
        else:  # the place's own
            tree.skip(one.path, "would have a name with characters that no name should have, or none")
