"""The user's own folders, and LM Studio's; and what holds for all stores: bounds, links, names."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.registry.stores import scan as scan_module
from pilotlight.registry.stores import tree
from pilotlight.registry.stores.folders import find_own
from pilotlight.registry.stores.found import Found
from pilotlight.registry.stores.places import Place
from pilotlight.registry.stores.scan import Scan, scan
from pilotlight.registry.stores.tree import Tree
from pilotlight.registry.stores.weights import bytes_of, changed
from store_factory import GGUF, MLX, ONNX, look, names, reasons, write


def test_a_model_in_a_folder_is_called_by_its_path(tmp_path: Path) -> None:
    """Without the suffix; one at the top by its name alone."""
    write(tmp_path, {"a.gguf": GGUF, "more/b-Q4_0.GGUF": GGUF, "notes.txt": b""})
    write(tmp_path / "mlx", MLX)
    assert names(look("folder", tmp_path)) == ["a", "mlx", "more/b-Q4_0"]


def test_a_folder_that_is_itself_a_model_is_called_by_its_name(tmp_path: Path) -> None:
    """Somebody named it instead of the one around it."""
    assert names(look("folder", write(tmp_path / "mlx", MLX))) == ["mlx"]


def test_a_place_whose_name_is_no_text_is_told(tmp_path: Path) -> None:
    """A model that it is itself would be called by it; those in it are served."""
    place = write(tmp_path / os.fsdecode(b"mlx\xff"), MLX)
    write(place, {"a.gguf": GGUF})
    assert names(look("folder", place)) == ["a"]
    assert reasons(look("folder", place)).startswith("mlx?: would have a name with characters that no name")


def test_lm_studio_s_models_are_called_by_publisher_and_model(tmp_path: Path) -> None:
    """As it shows them."""
    write(tmp_path, {"lmstudio-community/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf": GGUF})
    write(tmp_path / "mlx-community" / "small-4bit", MLX)
    assert names(look("lmstudio", tmp_path)) == [
        "lmstudio/lmstudio-community/Qwen3-4B-GGUF:Q4_K_M",
        "lmstudio/mlx-community/small-4bit",
    ]


@pytest.mark.parametrize("name", ["model.onnx.data", "model.onnx_data", "model.onnx_data_1"])
def test_what_lies_outside_a_graph_belongs_to_its_weights(tmp_path: Path, name: str) -> None:
    """However it is named: it counts, and a change of it is one."""
    graph = {name: content for name, content in ONNX.items() if name != "model.onnx.data"}
    folder = write(tmp_path / "m", graph | {name: b"weights"})
    found = look("folder", tmp_path)
    assert [file.name for file in found.found[0].weights] == ["model.onnx", name]
    assert bytes_of(folder) == len(b"graph" + b"weights")
    (folder / name).write_bytes(b"others")
    assert not found.is_current


@pytest.mark.parametrize("name", sorted(MLX))
def test_a_folder_changes_with_what_is_written_over_in_it(tmp_path: Path, name: str) -> None:
    """Its own time stays; what is hidden is not of the model."""
    folder = write(tmp_path / "m", MLX | {".seen": b""})
    for file in (*folder.iterdir(), folder):
        os.utime(file, (1000, 1000))
    found = look("folder", tmp_path)
    os.utime(folder / ".seen", (3000, 3000))
    assert (changed(folder), found.is_current) == (1000, True)
    os.utime(folder / name, (2000, 2000))
    assert (changed(folder), found.is_current) == (2000, False)
    (folder / ".lock").touch()
    assert changed(folder) == 2000, "so the folder's own time is no change"


def test_a_model_in_parts_changes_with_each_of_them(tmp_path: Path) -> None:
    """Not with another file beside them; one that is not there never changed."""
    write(tmp_path, {"m-00001-of-00002.gguf": GGUF, "m-00002-of-00002.gguf": GGUF, "other.gguf": GGUF})
    for file, at in zip(sorted(tmp_path.iterdir()), (1000, 2000, 3000), strict=True):
        os.utime(file, (at, at))
    assert changed(tmp_path / "m-00001-of-00002.gguf") == 2000
    assert changed(tmp_path / "none.gguf") == 0


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """And no news."""
    assert (look("folder", tmp_path / "none").found, look("ollama", tmp_path / "none").skipped) == ((), ())


def test_links_in_circles_end(tmp_path: Path) -> None:
    """Every folder is looked into once."""
    write(tmp_path, {"in/a.gguf": GGUF})
    (tmp_path / "in" / "back").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "in")
    assert names(look("folder", tmp_path)) == ["again/a"]


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    """As everything that the system refuses to open."""
    (tmp_path / "a.gguf").symlink_to("a.gguf")
    assert reasons(look("folder", tmp_path)) == "a.gguf: cannot be read: Too many levels of symbolic links"


def test_a_file_that_cannot_even_be_told_from_a_link_is_told(tmp_path: Path) -> None:
    """Its path is longer than the system takes; in a folder that may only be listed it is the same."""
    folder = tmp_path
    while len(os.fspath(folder)) < 3900:
        folder /= "a" * 100
    os.makedirs(folder)
    within = os.open(folder, os.O_RDONLY)
    os.close(os.open(f"{'b' * 190}.gguf", os.O_CREAT, dir_fd=within))
    os.close(within)
    write(tmp_path / "others", {"c.gguf": GGUF})
    found = scan([Place("folder", folder), Place("folder", tmp_path / "others")])
    assert names(found) == ["c"]
    assert "cannot be read: File name too long" in reasons(found)


def test_a_bug_costs_the_models_of_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind it: it is told, without the words that led to it."""

    def find(tree: Tree) -> Iterator[Found]:
        yield from find_own(tree)
        raise ValueError("what stands in the file")

    monkeypatch.setitem(scan_module.FINDERS, "lmstudio", find)
    one, two = write(tmp_path / "one", {"a.gguf": GGUF}), write(tmp_path / "two", {"b.gguf": GGUF})
    found = scan([Place("lmstudio", one), Place("folder", two)])
    assert (names(found), found.is_current) == (["a", "b"], True)
    assert reasons(found) == "one: was not searched to its end: ValueError"


def test_a_link_from_one_place_into_another_is_followed(tmp_path: Path) -> None:
    """Both are looked into anyway."""
    file = write(tmp_path / "one", {"a.gguf": GGUF}) / "a.gguf"
    (write(tmp_path / "two", {}) / "b.gguf").parent.mkdir()
    (tmp_path / "two" / "b.gguf").symlink_to(file)
    assert names(scan([Place("folder", tmp_path / "one"), Place("folder", tmp_path / "two")])) == ["a", "b"]
    assert "b.gguf: leads out of the store" in reasons(look("folder", tmp_path / "two"))


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would never answer."""
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "link.gguf").symlink_to("pipe.gguf")
    assert (names(look("folder", tmp_path)), reasons(look("folder", tmp_path))) == ([], "")


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "C:a", "a\\b", os.fsdecode(b"a\xff"), "a" * 220])
def test_a_name_that_no_file_should_have_is_refused(tmp_path: Path, name: str) -> None:
    """It would be printed, and sent to clients."""
    write(tmp_path, {f"{name}.gguf": GGUF, f"{name}/inner.gguf": GGUF})
    found = look("folder", tmp_path)
    assert names(found) == []
    assert reasons(found).count("its name is refused") == 2


def test_a_path_that_is_too_long_for_a_name_is_told(tmp_path: Path) -> None:
    """Each step of it is fine."""
    write(tmp_path, {f"{'a' * 130}/{'b' * 130}/c.gguf": GGUF})
    assert names(look("folder", tmp_path)) == []
    assert "c.gguf: would have a name of more than 256 characters" in reasons(look("folder", tmp_path))


def test_hidden_files_are_none_of_our_business(tmp_path: Path) -> None:
    """Downloads keep their halves there."""
    write(tmp_path, {".a.gguf": GGUF, ".cache/b.gguf": GGUF})
    assert (names(look("folder", tmp_path)), reasons(look("folder", tmp_path))) == ([], "")


def test_a_place_with_too_much_in_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody named the whole disk."""
    monkeypatch.setattr(tree, "MAX_ENTRIES", 3)
    write(tmp_path, {f"{number}.gguf": GGUF for number in range(5)})
    found = look("folder", tmp_path)
    assert names(found) == ["0", "1", "2"]
    assert "holds too much: at most 3 files are looked at" in reasons(found)


def test_a_place_is_looked_into_to_a_depth(tmp_path: Path) -> None:
    """Four folders down."""
    write(tmp_path, {"1/2/3/4/a.gguf": GGUF, "1/2/3/4/5/b.gguf": GGUF})
    assert names(look("folder", tmp_path)) == ["1/2/3/4/a"]


def test_a_scan_is_current_until_something_changes(tmp_path: Path) -> None:
    """A file that comes, grows or goes; the store itself; what a link leads to."""
    assert not Scan().is_current
    folder = tmp_path / "models"
    found = look("folder", folder)
    assert found.is_current
    write(folder, {"sub/a.gguf": GGUF})
    assert not found.is_current
    (folder / "link.gguf").symlink_to("later.gguf")
    for change in (
        lambda: (folder / "later.gguf").write_bytes(GGUF),
        lambda: (folder / "sub" / "a.gguf").write_bytes(GGUF + b"more"),
        lambda: (folder / "sub" / "a.gguf").unlink(),
    ):
        found = look("folder", folder)
        assert found.is_current
        change()
        assert not found.is_current
