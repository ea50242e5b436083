"""Small files that are written whole or not at all."""

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
