"""Which pulled model a name means."""

from pathlib import Path

import pytest

from pilotlight.errors import BadRequest, ModelNotFound
from pilotlight.store.shelf import Shelf
from resolving import put, resolve


def names(shelf: Shelf) -> list[str]:
    return [record.name for record in shelf.store.records()]


def test_a_short_name_means_the_one_that_has_it(tmp_path: Path) -> None:
    put(tmp_path, "owner/One")
    shelf = Shelf(resolve(tmp_path))
    assert shelf.remove("One")["model"] == "owner/One"
    assert names(shelf) == []


def test_a_short_name_of_several_means_none(tmp_path: Path) -> None:
    """Neither is deleted, nor the other one at the second try."""
    put(tmp_path, "a/One", "b/One")
    shelf = Shelf(resolve(tmp_path))
    for act in (shelf.remove, shelf.rollback):
        with pytest.raises(BadRequest, match="'One' may be any of a/One, b/One: say which"):
            act("One")
    assert names(shelf) == ["a/One", "b/One"]
    assert shelf.remove("b/One")["model"] == "b/One"


def test_a_configured_name_is_no_short_name(tmp_path: Path) -> None:
    """Requests for it mean the file."""
    put(tmp_path, "owner/One")
    shelf = Shelf(resolve(tmp_path, "[[model]]\nname = 'One'\naliases = ['best']\npath = 'one.gguf'"))
    for name in ("One", "best"):
        with pytest.raises(ModelNotFound, match=f"{name} is configured, and nothing of it is pulled"):
            shelf.remove(name)
    assert names(shelf) == ["owner/One"]
