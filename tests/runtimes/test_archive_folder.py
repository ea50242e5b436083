"""Which files of an archive stay, and who may look into its folder."""

import os
import time
from pathlib import Path

import pytest

from pilotlight.core import Archive
from pilotlight.runtimes.archive import folder

DAY_S = 86400.0


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Of 100 bytes for a week."""
    return Archive(str(tmp_path / "conversations"), max_bytes=100, max_age_s=7 * DAY_S)


def put(archive: Archive, number: int, num_bytes: int = 10, days: float = 0.0) -> Path:
    """A file last used so many days ago."""
    path = Path(archive.folder) / folder.name_of(b"k" * 32, bytes([number]))
    folder.make(path.parent)
    path.write_bytes(b"x" * num_bytes)
    used_at = time.time() - days * DAY_S
    os.utime(path, (used_at, used_at))
    return path


def coming(archive: Archive, num_bytes: int = 10, days: float = 0.0) -> folder.Entry:
    """One that is to be written, last used so many days ago."""
    path = Path(archive.folder) / folder.name_of(b"k" * 32, b"coming")
    return folder.Entry(path, num_bytes, time.time() - days * DAY_S)


def names(archive: Archive) -> set[str]:
    return set(os.listdir(archive.folder))


def test_nobody_else_may_look_into_it(archive: Archive) -> None:
    """Not even if it was open to all before."""
    path = Path(archive.folder)
    folder.make(path)
    assert path.stat().st_mode & 0o777 == 0o700
    path.chmod(0o755)
    folder.make(path)
    assert path.stat().st_mode & 0o777 == 0o700


def test_what_is_too_old_goes(archive: Archive) -> None:
    """And what says to come from the future."""
    young = put(archive, 1, days=6.9)
    put(archive, 2, days=7.1)
    put(archive, 3, days=-8)
    folder.prune(archive)
    assert names(archive) == {young.name}


def test_the_longest_unused_make_room(archive: Archive) -> None:
    """As many as must, also for one that is to come."""
    paths = [put(archive, number, num_bytes=30, days=number) for number in range(3)]
    folder.prune(archive)
    assert names(archive) == {path.name for path in paths}
    assert folder.prune(archive, coming(archive, num_bytes=50))
    assert names(archive) == {paths[0].name}


def test_nothing_makes_room_for_what_was_not_used_for_longer(archive: Archive) -> None:
    """There is room behind it, or none at all."""
    paths = [put(archive, number, num_bytes=30, days=number) for number in range(3)]
    assert not folder.prune(archive, coming(archive, num_bytes=50, days=1.5))
    assert names(archive) == {path.name for path in paths}
    assert folder.prune(archive, coming(archive, num_bytes=40, days=1.5))
    assert names(archive) == {path.name for path in paths[:2]}


def test_there_are_not_too_many(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small they are."""
    monkeypatch.setattr(folder, "MOST_FILES", 3)
    paths = [put(archive, number, num_bytes=1, days=number) for number in range(5)]
    assert folder.prune(archive, coming(archive, num_bytes=1))
    assert names(archive) == {path.name for path in paths[:2]}


def test_what_was_left_unfinished_goes(archive: Archive) -> None:
    """Unless somebody may be writing it."""
    put(archive, 1)
    for name, age_s in (("old", 61), ("new", 1)):
        path = Path(archive.folder) / f"{folder.UNFINISHED}{name}"
        path.write_bytes(b"")
        os.utime(path, (time.time() - age_s,) * 2)
    folder.prune(archive)
    assert {name for name in names(archive) if name.startswith(folder.UNFINISHED)} == {".new-new"}


def test_what_is_not_ours_stays(archive: Archive) -> None:
    """Other names, links and folders."""
    ours = put(archive, 1, days=8)
    other = ours.with_name("notes.kv")
    other.write_bytes(b"")
    os.utime(other, (0, 0))
    ours.with_name("link").symlink_to(other)
    (ours.parent / folder.name_of(b"k" * 32, b"a folder")).mkdir()
    folder.prune(archive)
    folder.clear(ours.parent)
    assert len(names(archive)) == 3
    assert not ours.exists()


def test_everything_goes_when_there_is_to_be_none(archive: Archive) -> None:
    """Finished or not; where there is no folder there is nothing to do."""
    folder.clear(Path(archive.folder))
    put(archive, 1)
    (Path(archive.folder) / ".new-1").touch()
    folder.clear(Path(archive.folder))
    assert names(archive) == set()
    assert folder.num_bytes(Path(archive.folder)) == 0


def test_its_size_is_that_of_its_files(archive: Archive) -> None:
    """For the metrics."""
    put(archive, 1, num_bytes=7)
    put(archive, 2, num_bytes=5)
    assert folder.num_bytes(Path(archive.folder)) == 12
