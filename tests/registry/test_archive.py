"""The settings of the archive, in the words of a person."""

import os
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import anyio
import pytest
from structlog.testing import capture_logs

from pilotlight.registry.archive import TIDY_EVERY_S, archive_of, keep_tidy, parse_bytes, tidy
from pilotlight.runtimes.archive import folder
from virtual_clock import run_virtual


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


def record(state_dir: Path) -> Path:
    """What somebody uses just now."""
    path = state_dir / folder.NAME / folder.name_of(b"k" * 32, b"")
    path.parent.mkdir()
    path.touch()
    return path


def test_what_an_archive_made_is_deleted_when_there_is_to_be_none(tmp_path: Path) -> None:
    """All of it."""
    path = record(tmp_path)
    tidy(tmp_path, None)
    assert not path.exists()


def test_what_gets_too_old_goes_while_the_daemon_runs(tmp_path: Path) -> None:
    """Though nothing is loaded or unloaded any more."""
    path = record(tmp_path)

    async def watch() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_tidy, tmp_path, archive_of(tmp_path, "1GiB", "7d"))
            await anyio.sleep(1)
            assert path.exists()
            os.utime(path, (0, 0))
            await anyio.sleep(TIDY_EVERY_S)
            assert not path.exists()
            tasks.cancel_scope.cancel()

    run_virtual(watch)


def test_where_nothing_is_written_it_is_tidied_once(tmp_path: Path) -> None:
    """Nothing wakes for nothing."""
    path = record(tmp_path)
    run_virtual(partial(keep_tidy, tmp_path, None))
    assert not path.exists()


def test_a_folder_that_cannot_be_tidied_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in the log."""
    # No mode of a folder refuses anything to root.
    monkeypatch.setattr(folder, "clear", Mock(side_effect=PermissionError("not yours")))
    with capture_logs() as logs:
        tidy(tmp_path, None)
    assert [(one["event"], one["error"]) for one in logs] == [
        ("old conversations cannot be deleted", "not yours")
    ]
