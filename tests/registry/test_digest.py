"""Whether a model's files are the ones they were."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from pilotlight.core import Loading, Lora, Model
from pilotlight.registry.digest import NUM_SAMPLES, SAMPLE_BYTES, digest_of


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Large enough that not all of it is read."""
    path = tmp_path / "one.gguf"
    path.write_bytes(bytes(3 * NUM_SAMPLES * SAMPLE_BYTES))
    return Model("one", path)


def keeping_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_atime_ns, found.st_mtime_ns


def test_another_name_or_place_makes_no_difference(model: Model, tmp_path: Path) -> None:
    """The bytes are the same, and so is what was computed with them."""
    before = digest_of(model)
    moved = tmp_path / "elsewhere" / "other.gguf"
    moved.parent.mkdir()
    model.path.rename(moved)
    assert digest_of(Model("other", moved)) == before


def test_a_change_of_time_or_size_does(model: Model) -> None:
    """Whatever was written."""
    before = digest_of(model)
    os.utime(model.path, ns=(0, keeping_time(model.path)[1] + 1))
    touched = digest_of(model)
    os.truncate(model.path, model.path.stat().st_size + 1)
    assert len({before, touched, digest_of(model)}) == 3


def test_other_content_does_that_says_to_be_as_old(model: Model) -> None:
    """As files have it that were unpacked from an archive: their samples differ."""
    before, times = digest_of(model), keeping_time(model.path)
    model.path.write_bytes(bytes([1]) * model.path.stat().st_size)
    os.utime(model.path, ns=times)
    assert digest_of(model) != before


def test_another_adapter_does(model: Model, tmp_path: Path) -> None:
    """In the place of the one before, while the settings are those they were."""
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"old")
    adapted = replace(model, loading=Loading(lora=(Lora(str(adapter), 1.0, 0),)))
    before = digest_of(adapted)
    adapter.write_bytes(b"new")
    assert len({before, digest_of(adapted), digest_of(model)}) == 3


def test_every_part_counts(tmp_path: Path) -> None:
    """Of a file in parts, and of a folder."""
    parts = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(b"x")
    for path in (parts[0], tmp_path):
        before = digest_of(Model("big", path))
        parts[1].write_bytes(parts[1].read_bytes() + b"y")
        assert digest_of(Model("big", path)) != before


def test_names_that_are_no_text_count_too(tmp_path: Path) -> None:
    """A stranger's folder may have them."""
    digests = set()
    for name in (b"\xff", b"\xfe"):
        file = tmp_path / os.fsdecode(name)
        file.touch()
        os.utime(file, (1, 1))
        digests.add(digest_of(Model("folder", tmp_path)))
        file.unlink()
    assert len(digests) == 2
