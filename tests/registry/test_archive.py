"""The settings of the archive, in the words of a person."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from pilotlight.registry.archive import archive_of, parse_bytes, tidy
from pilotlight.runtimes.archive import folder


def test_bytes_are_written_as_memory_is() -> None:
    """In their units."""
    assert [parse_bytes(text) for text in ("2GiB", "500MB", "1000")] == [2**31, 500 * 10**6, 1000]


def test_none_at_all_can_be_said() -> None:
    """As a number or a word."""
    assert [archive_of(Path("/x"), text, "7d") for text in ("0", "off", " Off ")] == [None] * 3


@pytest.mark.parametrize("wrong", ["50%", "0.5", "-1", "much", ""])
def test_a_part_of_nothing_named_is_refused(wrong: str) -> None:
    """Of the disk? Of the memory?"""
    with pytest.raises(ValueError, match="must be bytes of disk"):
        parse_bytes(wrong)


def test_it_lies_in_the_state_directory() -> None:
    """For as long as it is told."""
    found = archive_of(Path("/state"), "1GiB", "12h")
    assert found is not None
    assert (found.folder, found.max_bytes, found.max_age_s) == ("/state/conversations", 2**30, 43200.0)


def test_what_an_archive_made_is_deleted_when_there_is_to_be_none(tmp_path: Path) -> None:
    """All of it."""
    path = tmp_path / folder.NAME
    path.mkdir()
    (path / folder.name_of(b"k" * 32, b"")).touch()
    tidy(tmp_path, None)
    assert not list(path.iterdir())


def test_a_folder_that_cannot_be_tidied_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in the log."""
    # No mode of a folder refuses anything to root.
    monkeypatch.setattr(folder, "clear", Mock(side_effect=PermissionError("not yours")))
    with capture_logs() as logs:
        tidy(tmp_path, None)
    assert [(one["event"], one["error"]) for one in logs] == [
        ("old conversations cannot be deleted", "not yours")
    ]
