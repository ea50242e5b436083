"""One look into all stores. Blocks; meant for a thread."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

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
    """Look into every place. A link may lead from one into another, and nowhere else."""
    allowed = [Path(os.path.realpath(place.path)) for place in places]
    found: list[Found] = []
    skipped: list[Skipped] = []
    marks: dict[str, Mark] = {}
    for place in places:
        tree = Tree(place, allowed)
        found += _called_shortly(tree, FINDERS[place.store](tree))
        skipped += tree.skipped
        marks |= tree.marks
    return Scan(tuple(found), tuple(skipped), marks)


def _called_shortly(tree: Tree, found: Iterator[Found]) -> Iterator[Found]:
    """Those with a name that a model may have, and only those names."""
    for one in found:
        if names := tuple(name for name in one.names if len(name) <= LONGEST_NAME):
            yield replace(one, names=names)
        else:
            tree.skip(one.path, f"would have a name of more than {LONGEST_NAME} characters")
