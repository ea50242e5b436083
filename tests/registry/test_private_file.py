"""Small files that are written whole or not at all."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.registry import private_file


@pytest.mark.parametrize("is_lasting", [False, True])
def test_what_is_written_replaces_what_was_there(tmp_path: Path, is_lasting: bool) -> None:
    """Also its rights."""
    file = tmp_path / "file"
    file.write_text("something longer than the new")
    private_file.write(file, b"new", is_lasting=is_lasting)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", 0o600)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The old content stays, and no half file beside it."""
    (folder := tmp_path / "file").mkdir()
    (folder / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        private_file.write(folder, b"new")
    assert list(tmp_path.iterdir()) == [folder]


def test_what_cannot_be_made_to_its_end_leaves_the_old(tmp_path: Path) -> None:
    """Whatever is wrong with a piece of it."""

    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise ValueError("xyzzy")

    (file := tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ValueError, match="xyzzy"):
        private_file.write_pieces(file, pieces())
    assert ([file], b"old") == (list(tmp_path.iterdir()), file.read_bytes())


def test_a_file_system_need_not_sync_folders() -> None:
    """Some cannot, here the one of processes; what is in the folder has come all the same."""
    private_file.sync(Path("/proc/self"))


def test_a_folder_that_did_not_reach_the_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that can sync it has failed."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            private_file.sync(tmp_path)
