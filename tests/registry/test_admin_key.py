"""The file with the admin key."""

import os
import sys
from pathlib import Path

import pytest

from pilotlight.registry import keys
from pilotlight.registry.keys import admin_file, ensure_admin_key, is_key, read


def test_the_key_is_made_once(tmp_path: Path) -> None:
    """Programs may keep it: the next start finds the same."""
    key = ensure_admin_key(tmp_path)
    assert is_key(key)
    assert ensure_admin_key(tmp_path) == read(admin_file(tmp_path)) == key


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    ensure_admin_key(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_two_state_directories_have_two_keys(tmp_path: Path) -> None:
    """It is random."""
    first, second = (tmp_path / name for name in "ab")
    for folder in (first, second):
        folder.mkdir()
    assert ensure_admin_key(first) != ensure_admin_key(second)


def test_a_deleted_key_is_replaced_by_another(tmp_path: Path) -> None:
    """That is how it is changed."""
    old = ensure_admin_key(tmp_path)
    admin_file(tmp_path).unlink()
    assert ensure_admin_key(tmp_path) != old


def test_a_key_of_ones_own_is_kept(tmp_path: Path) -> None:
    """For who provisions machines."""
    admin_file(tmp_path).write_text("chosen-by-a-person\n")
    admin_file(tmp_path).chmod(0o600)
    assert ensure_admin_key(tmp_path) == "chosen-by-a-person"


@pytest.mark.parametrize("content", [b"", b"short", b"two words in a key file", b"\xff" * 40, b"x" * 9999])
def test_a_damaged_key_is_made_anew(tmp_path: Path, content: bytes) -> None:
    """Nobody could send these, or everybody could guess them."""
    admin_file(tmp_path).write_bytes(content)
    admin_file(tmp_path).chmod(0o600)
    key = ensure_admin_key(tmp_path)
    assert is_key(key) and key.encode() not in content


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_key_that_others_could_read_or_write_is_made_anew(tmp_path: Path, mode: int) -> None:
    """It is a secret no more."""
    old = ensure_admin_key(tmp_path)
    admin_file(tmp_path).chmod(mode)
    assert read(admin_file(tmp_path)) is None
    assert ensure_admin_key(tmp_path) != old
    assert admin_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_the_key_of_another_user_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root with a user's state directory: their daemon may run, and nobody would have the key to it."""
    if sys.platform == "win32":
        pytest.skip("a profile is nobody else's there")
    theirs = ensure_admin_key(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(keys, "_owner_in", lambda folder: os.getuid() + 1)
    with pytest.raises(PermissionError, match=rf"its admin\.key is of user {os.getuid()}, .*--state-dir"):
        ensure_admin_key(tmp_path)
    assert admin_file(tmp_path).read_text().strip() == theirs


def test_where_all_files_seem_to_be_somebody_else_s_there_is_a_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounts that show one owner for everybody's: the key is made by us, and nobody is kept out."""
    if sys.platform == "win32":
        pytest.skip("a profile is nobody else's there")
    old = ensure_admin_key(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert ensure_admin_key(tmp_path) != old


def test_a_link_or_a_pipe_is_no_key(tmp_path: Path) -> None:
    """Neither is followed, waited for or written through."""
    (elsewhere := tmp_path / "elsewhere").write_text("a-key-of-somebody-else")
    elsewhere.chmod(0o600)
    file = admin_file(tmp_path)
    file.symlink_to(elsewhere)
    assert ensure_admin_key(tmp_path) != "a-key-of-somebody-else"
    assert elsewhere.read_text() == "a-key-of-somebody-else"
    file.unlink()
    os.mkfifo(file)
    assert ensure_admin_key(tmp_path) == read(file)


@pytest.mark.parametrize("text", ["", "x" * 15, "with a space inside", "with,commas,inside", "schlüssel" * 3])
def test_what_is_no_key(text: str) -> None:
    """Too short, or it would be read differently from a header or a list."""
    assert not is_key(text)
    assert is_key("sk-0123456789/+=_")
