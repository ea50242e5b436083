"""Machines are read right: every one that a report describes, and nothing that none describes."""

from pathlib import Path

import pytest
from trees import TREES, Tree, reading_of

from pilotlight.power.reading import Supply, ThermalLevel


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_a_machine_is_read_right(tree: Tree, tmp_path: Path) -> None:
    """As its report says it was."""
    tree.write(tmp_path)
    reading = reading_of(tmp_path)
    for field, value in tree.expect.items():
        found = getattr(reading, field)
        right = value if isinstance(value, str | bool) else pytest.approx(value, abs=0.05)
        assert found == right, (field, found, reading.origins.get(field))


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_what_cannot_be_known_is_unknown_with_a_reason(tree: Tree, tmp_path: Path) -> None:
    """Never a default that looks like a value."""
    tree.write(tmp_path)
    reading = reading_of(tmp_path)
    assert [field for field in tree.unknown if getattr(reading, field) is not None] == []
    assert all(reading.unknown[field] for field in tree.unknown)


@pytest.mark.parametrize("tree", [tree for tree in TREES if tree.is_on_mains], ids=lambda tree: tree.name)
def test_nobody_on_mains_is_restricted(tree: Tree, tmp_path: Path) -> None:
    """Not by the supply; and by heat only where the report is of a hot machine."""
    tree.write(tmp_path)
    reading = reading_of(tmp_path)
    assert reading.supply in (None, Supply.AC)
    assert (reading.thermal or 0) == tree.expect.get("thermal", ThermalLevel.NOMINAL)
    assert bool(reading.is_throttled) == tree.expect.get("is_throttled", False)
    assert bool(reading.is_saving) == tree.expect.get("is_saving", False)
