"""What people do with pulled models, where the disk or another process is in the way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pilotlight.errors import PullFailed
from pilotlight.store.shelf import Shelf
from resolving import put, resolve


@pytest.mark.parametrize(
    "change",
    [
        lambda shelf: shelf.rollback("one"),
        lambda shelf: shelf.remove("one"),
        lambda shelf: shelf.prune(dry_run=False),
        lambda shelf: shelf.prune(dry_run=True),
    ],
    ids=["rollback", "rm", "prune", "prune --dry-run"],
)
def test_a_store_that_cannot_be_used_is_told(tmp_path: Path, change: Callable[[Shelf], Any]) -> None:
    """Which one, and what the system says; here a folder is where its lock should be."""
    put(tmp_path, "one")
    shelf = Shelf(resolve(tmp_path))
    lock = tmp_path / "store" / "store.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(PullFailed, match=f"the store {tmp_path / 'store'} cannot be used: Is a directory"):
        change(shelf)


@pytest.mark.parametrize("look", [lambda shelf: shelf.job("one"), Shelf.versions], ids=["pull", "versions"])
def test_a_store_that_cannot_be_looked_into_is_told(tmp_path: Path, look: Callable[[Shelf], Any]) -> None:
    """In the same way; here its folder of models leads to itself."""
    shelf = Shelf(resolve(tmp_path))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "models").symlink_to("models")
    with pytest.raises(PullFailed, match=f"the store {tmp_path / 'store'} cannot be used: Too many levels"):
        look(shelf)


def test_a_model_whose_record_is_damaged_can_be_deleted(tmp_path: Path) -> None:
    """By its name, as any other."""
    put(tmp_path, "one")
    (record,) = (tmp_path / "store").glob("models/one/model.json")
    record.write_text("{")
    assert Shelf(resolve(tmp_path)).remove("one")["model"] == "one"
    assert not record.parent.exists()


def test_a_dry_run_waits_for_who_changes_the_store(tmp_path: Path) -> None:
    """What it counts would go while it does."""
    put(tmp_path, "one")
    shelf = Shelf(resolve(tmp_path))
    with ThreadPoolExecutor() as threads:
        with shelf.store.locked():
            counted = threads.submit(shelf.prune, dry_run=True)
            with pytest.raises(TimeoutError):
                counted.result(0.1)
        assert counted.result(10)["removed"] == []
