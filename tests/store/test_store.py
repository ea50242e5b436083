"""Versions side by side, one of them active, and nothing half."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from downloads import names, occupy
from msgspec.structs import replace

from pilotlight.errors import BadRequest, ModelNotFound, NoRollback, PullFailed
from pilotlight.registry import private_file
from pilotlight.store.disk import bytes_of, make_private
from pilotlight.store.locks import alone_at
from pilotlight.store.manifest import File, Version, encode, version_id
from pilotlight.store.paths import folder_name
from pilotlight.store.store import Store, short_name

NAME = "owner/name-GGUF:Q8_0"


def put(store: Store, content: bytes, *, name: str = NAME, activate: bool = True) -> Version:
    """A version of one file, as if it had just been downloaded."""
    file = File("model.gguf", f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    store.part(file.digest)
    store.arrived(file.digest).write_bytes(content)
    version = store.install(
        name, Version(version_id((file,)), name, "", float(len(content)), file.path, (file,))
    )
    if activate:
        store.activate(name, version)
    return version


def arrive(store: Store, path: str, content: bytes) -> File:
    """A file that has just been downloaded, for a version."""
    file = File(path, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    store.arrived(file.digest).write_bytes(content)
    return file


def refuse_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a FAT file system does."""

    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)


def refuse_deleting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows does it with a file that is open; here with every model."""
    unlink = os.unlink

    def refuse(path: str | Path, *, dir_fd: int | None = None) -> None:
        if Path(path).name == "model.gguf":
            raise PermissionError(13, "the file is open")
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)


def refuse_writing(monkeypatch: pytest.MonkeyPatch, is_full: Callable[[], bool]) -> None:
    """As a full disk does it."""
    write = private_file.write

    def refuse(file: Path, content: bytes, *, is_lasting: bool = False) -> None:
        if is_full():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content, is_lasting=is_lasting)

    monkeypatch.setattr(private_file, "write", refuse)


def refuse_looking(monkeypatch: pytest.MonkeyPatch, hidden: Path) -> None:
    """As another user's folder does."""
    iterdir = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:
        if folder == hidden:
            raise PermissionError(errno.EACCES, "Permission denied")
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)


def content(store: Store) -> bytes:
    """Of the active version of the only model."""
    (stored,) = store.models()
    return stored.path.read_bytes()


def test_an_installed_version_is_not_yet_active(store: Store) -> None:
    """It has its files, and nobody loads them."""
    version = put(store, b"one", activate=False)
    assert store.models() == []
    assert [found.id for found in store.versions(NAME)] == [version.id]
    store.activate(NAME, version)
    assert content(store) == b"one"


def test_another_model_s_folder_is_left_alone(store: Store) -> None:
    """It is the same where the file system takes big letters for small ones."""
    occupy(store, NAME, NAME.upper())
    with pytest.raises(BadRequest, match=f"cannot be kept beside {NAME.upper()}: "):
        put(store, b"one")
    assert names(store.root / "models" / folder_name(NAME)) == ["model.json"]


def test_a_new_version_keeps_the_previous_one(store: Store) -> None:
    """And rollback returns to it, and back."""
    one, two = put(store, b"one"), put(store, b"two!")
    record = store.record(NAME)
    assert (record.active, record.previous) == (two.id, one.id)
    assert store.rollback(NAME).active == one.id
    assert content(store) == b"one"
    assert store.rollback(NAME).active == two.id
    assert content(store) == b"two!"


def test_there_is_nothing_to_roll_back_to(store: Store) -> None:
    """Before a second version, and after pruning."""
    put(store, b"one")
    with pytest.raises(NoRollback, match="has no previous version"):
        store.rollback(NAME)
    put(store, b"two!")
    store.prune()
    with pytest.raises(NoRollback):
        store.rollback(NAME)


def test_a_refused_version_changes_nothing(store: Store) -> None:
    """Its reason is remembered until it passes."""
    one = put(store, b"one")
    two = put(store, b"two!", activate=False)
    store.refuse(NAME, two, "says nothing")
    assert store.record(NAME).failures == {two.id: "says nothing"}
    assert store.record(NAME).active == one.id
    store.activate(NAME, two)
    assert store.record(NAME).failures == {}


def test_the_same_files_are_the_same_version(store: Store) -> None:
    """Installing them again changes nothing."""
    assert put(store, b"one").id == put(store, b"one").id
    assert store.record(NAME).previous is None


def test_versions_share_the_bytes_they_have_in_common(store: Store) -> None:
    """A file that is in the store already is not needed from anywhere else."""
    put(store, b"one")
    (file,) = store.versions(NAME)[0].files
    assert store.find(file) is not None
    files = (file, File("copy.gguf", file.digest, file.size))
    store.install("other", Version(version_id(files), "other", "", 0.0, "model.gguf", files))
    (other,) = store.versions("other")
    path = store.path("other", other)
    assert path.read_bytes() == path.with_name("copy.gguf").read_bytes() == b"one"
    assert path.stat().st_nlink == 3


def test_a_version_whose_files_are_gone_is_not_installed(store: Store) -> None:
    """Somebody pruned meanwhile."""
    file = File("model.gguf", f"sha256:{'0' * 64}", 3)
    with pytest.raises(PullFailed, match="was removed while the rest was downloaded"):
        store.install(NAME, Version("0", NAME, "", 0.0, file.path, (file,)))
    assert names(store.root) == []


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("fault", ["a file is gone", "its manifest is in the way", "its folder is refused"])
def test_a_failed_installation_costs_no_download(
    store: Store, monkeypatch: pytest.MonkeyPatch, fault: str, has_links: bool
) -> None:
    """Whatever fails, what has arrived is there for the next try, and nothing else."""
    if not has_links:
        refuse_links(monkeypatch)
    one, two = arrive(store, "one.gguf", b"one"), arrive(store, "two.gguf", b"two!")
    there = names(store.root)
    gone, inside = File("gone", f"sha256:{'0' * 64}", 3), replace(two, path="version.json/two.gguf")
    files = (one, {"a file is gone": gone, "its manifest is in the way": inside}.get(fault, two))
    name = "no/folder" if fault == "its folder is refused" else "0" * 12
    with pytest.raises((PullFailed, OSError)):
        store.install(NAME, Version(name, NAME, "", 0.0, one.path, files))
    assert names(store.root) == there
    store.install(NAME, Version("0" * 12, NAME, "", 0.0, one.path, (one, two)))
    assert names(store.root / "incoming") == []


def test_files_need_no_links(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the same bytes are both there, in the next version, too."""
    refuse_links(monkeypatch)
    one = arrive(store, "one.gguf", b"one")
    files = (one, replace(one, path="again.gguf"))
    for key in ("first", "second"):
        version = store.install(NAME, Version(key, NAME, "", 0.0, one.path, files))
        path = store.path(NAME, version)
        assert path.read_bytes() == path.with_name("again.gguf").read_bytes() == b"one"
    assert names(store.root / "incoming") == []


@pytest.mark.parametrize("damage", ["model.json", "version.json", "model.gguf", "cut", "linked"])
def test_a_damaged_version_is_mended_by_installing_it_again(store: Store, damage: str) -> None:
    """A file of it is gone, is cut short or leads elsewhere, or nobody knows what it is."""
    path = store.path(NAME, put(store, b"one"))
    if damage == "cut":
        path.write_bytes(b"on")
    elif damage == "linked":
        path.rename(store.root / "elsewhere.gguf")
        path.symlink_to(store.root / "elsewhere.gguf")
    else:
        (path.parents[1] if damage == "model.json" else path.parent).joinpath(damage).unlink()
    put(store, b"one")
    assert content(store) == b"one"
    assert store.waste() == []


def test_an_installation_that_ends_before_its_record_is_finished_by_the_next(store: Store) -> None:
    """It has its folder already, and nothing is downloaded again."""
    record = store.root / "models" / folder_name(NAME) / "model.json"
    record.mkdir(parents=True)
    one = arrive(store, "model.gguf", b"one")
    version = Version("0" * 12, NAME, "", 0.0, one.path, (one,))
    with pytest.raises(OSError):
        store.install(NAME, version)
    assert store.find(one) is not None
    record.rmdir()
    store.activate(NAME, store.install(NAME, version))
    assert content(store) == b"one"
    assert names(store.root / "incoming") == []


def test_pruning_leaves_what_a_pull_has_gone_on_with(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking at it and deleting it."""
    one = arrive(store, "model.gguf", b"one")
    monkeypatch.setattr("pilotlight.store.store.is_busy", lambda path: False)
    with alone_at(store.part(one.digest), lambda: None):
        assert store.prune() == []
    assert store.find(one) is not None


def test_a_download_that_ends_while_waste_is_counted_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its real name by then."""
    store.part(f"git:{'f' * 40}").write_bytes(b"half")
    monkeypatch.setattr("pilotlight.store.store.is_busy", lambda path: path.unlink())
    assert store.waste() == []


def test_pruning_frees_what_is_not_active(store: Store) -> None:
    """Other versions and halves; it says so before, and does that then."""
    put(store, b"one")
    put(store, b"two!")
    store.part(f"git:{'f' * 40}").write_bytes(b"half")
    waste = store.waste()
    assert sorted(entry.what for entry in waste)[0] == "an unfinished download"
    assert store.prune() == waste
    assert content(store) == b"two!"
    assert store.waste() == []
    assert len(names(store.root)) == 3  # the record, the manifest and the file


def test_what_cannot_be_pruned_keeps_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told; what is left of it is no version, and the next time it goes, too."""
    put(store, b"one")
    two = put(store, b"two!")
    half = store.part(f"git:{'f' * 40}")
    half.write_bytes(b"half")
    with monkeypatch.context() as patched:
        refuse_deleting(patched)
        with pytest.raises(PermissionError, match="the file is open"):
            store.prune()
    assert not half.exists()
    assert ([left.id for left in store.versions(NAME)], store.record(NAME).previous) == ([two.id], None)
    assert [waste.bytes for waste in store.prune()] == [len(b"one")]


def test_a_full_disk_is_pruned(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for the record once the version that it names is gone."""
    folder = store.path(NAME, put(store, b"one")).parent
    put(store, b"two!")
    refuse_writing(monkeypatch, folder.exists)
    assert [waste.path for waste in store.prune()] == [folder]
    assert store.record(NAME).previous is None


def test_a_record_that_cannot_be_written_keeps_no_version(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that it names is gone then, and nothing goes back to it."""
    one = put(store, b"one")
    put(store, b"two!")
    with monkeypatch.context() as patched:
        refuse_writing(patched, lambda: True)
        assert [waste.path.name for waste in store.prune()] == [one.id]
    assert store.record(NAME).previous == one.id
    with pytest.raises(NoRollback, match="has no previous version"):
        store.rollback(NAME)
    assert content(store) == b"two!"


def test_pruning_writes_no_record_that_stays_as_it_is(store: Store) -> None:
    """A new file would be another one."""
    record = store.path(NAME, put(store, b"one")).parents[1] / "model.json"
    before = record.stat()
    store.prune()
    assert record.stat() == before


@pytest.mark.parametrize("is_model", [True, False])
def test_what_may_not_be_looked_at_keeps_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_model: bool
) -> None:
    """Another user's folder, also of a model, or lock; here a folder is in the place of that."""
    version = put(store, b"one", activate=False)
    hidden = store.root / "models" / "hidden"
    make_private(hidden / ("0" * 12))
    if is_model:
        put(store, b"another", name="hidden")
    lock = make_private(store.part(f"git:{'e' * 40}").with_suffix(".lock"))
    lock.with_suffix(".part").touch()
    half = store.part(f"git:{'f' * 40}")
    half.write_bytes(b"half")
    refuse_looking(monkeypatch, hidden)
    assert [waste.path for waste in store.prune()] == [store.path(NAME, version).parent, half]
    assert (half.exists(), hidden.exists(), lock.with_suffix(".part").exists()) == (False, True, True)


def test_what_somebody_keeps_among_the_models_is_theirs(store: Store, tmp_path: Path) -> None:
    """A file, a folder of files, one beside what could be a version, and a link to another place."""
    models = make_private(store.root / "models")
    make_private(tmp_path / "elsewhere" / ("0" * 12))
    for name in ("mine.gguf", "mine/model.gguf", "both/notes", f"both/{'0' * 12}/model.gguf"):
        make_private((models / name).parent)
        (models / name).write_bytes(b"GGUF")
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    there = names(store.root)
    assert (store.waste(), store.prune()) == ([], [])
    assert (names(store.root), len(there), (models / "linked").exists()) == (there, 4, True)


def test_nothing_goes_back_to_a_version_that_is_not_whole(store: Store) -> None:
    """Its deletion was broken off; the active one stays."""
    one = put(store, b"one")
    put(store, b"two!")
    store.path(NAME, one).unlink()
    with pytest.raises(NoRollback, match="has no previous version"):
        store.rollback(NAME)
    assert content(store) == b"two!"


def test_pruning_deletes_nothing_elsewhere(store: Store, tmp_path: Path) -> None:
    """Of a version that is a link to a folder."""
    version = put(store, b"one")
    manifest = tmp_path / "elsewhere" / "version.json"
    manifest.parent.mkdir()
    manifest.touch()
    store.path(NAME, version).parent.with_name("linked").symlink_to(manifest.parent)
    with pytest.raises(OSError, match="symbolic link"):
        store.prune()
    assert manifest.exists()


def test_a_version_is_kept_until_the_last_pull_that_wants_it_has_ended(store: Store) -> None:
    """Whoever came first."""
    put(store, b"one", activate=False)
    (version,) = store.versions(NAME)
    with ExitStack() as second:
        with store.keeping(NAME, version.id):
            second.enter_context(store.keeping(NAME, version.id))
        assert store.prune() == []
    assert [waste.path.name for waste in store.prune()] == [version.id]
    assert names(store.root / "incoming") == []


def test_a_lock_that_a_killed_pull_has_left_goes_with_the_waste(store: Store) -> None:
    """Nobody has it, and nobody will ever ask for it again."""
    make_private(store.root / "incoming").joinpath("name-0123456789ab-01234567.lock").touch()
    assert store.prune() == []
    assert names(store.root) == []


def test_removing_frees_everything(store: Store) -> None:
    """Of that model; also by its short name."""
    put(store, b"one")
    put(store, b"other", name="other")
    assert store.remove("name:Q8_0") > 3
    assert [stored.name for stored in store.models()] == ["other"]
    with pytest.raises(
        ModelNotFound, match="no pulled model is named 'owner/name-GGUF:Q8_0'; there is: other"
    ):
        store.remove(NAME)


def test_what_the_system_keeps_of_a_deleted_model_is_left_for_pruning(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is gone all the same; only what is free is said to be. One file is open here, on Windows."""
    put(store, b"one")
    size = bytes_of(store.root / "models")
    with monkeypatch.context() as patched:
        refuse_deleting(patched)
        assert store.remove(NAME) == size - len(b"one")
    assert store.records() == []
    assert [waste.bytes for waste in store.prune()] == [len(b"one")]
    assert names(store.root) == []


def test_a_link_out_of_the_store_is_not_followed(store: Store, tmp_path: Path) -> None:
    """Neither a file nor a folder; the others are served."""
    secret = tmp_path / "secret.gguf"
    secret.write_bytes(b"one")
    version = put(store, b"one")
    path = store.path(NAME, version)
    path.unlink()
    path.symlink_to(secret)
    put(store, b"other", name="other")
    assert [stored.name for stored in store.models()] == ["other"]
    with pytest.raises(BadRequest, match="leads out of the store"):
        store.path(NAME, version)


def test_a_linked_folder_is_not_followed(store: Store, tmp_path: Path) -> None:
    """A whole version elsewhere."""
    version = put(store, b"one")
    folder = store.path(NAME, version).parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert store.models() == []


@pytest.mark.parametrize("path", ["../../../../secret", "/etc/passwd", "a\0b"])
def test_a_manifest_cannot_name_a_file_outside(store: Store, path: str) -> None:
    """Somebody wrote into the store."""
    version = put(store, b"one")
    manifest = store.path(NAME, version).with_name("version.json")
    text = json.loads(manifest.read_text())
    text["entry"] = text["files"][0]["path"] = path
    manifest.write_text(json.dumps(text))
    assert store.models() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"name": 1}',
        '{"name": "x"}',
        '{"name": "x", "origin": "x"}',
        '{"name": "", "origin": "x"}',
        '{"name": "../x", "origin": "x"}',
        '{"name": "other", "origin": "x", "active": "../../../x"}',
        '{"name": "other", "origin": "x", "y": ' + "[" * 10**5 + "]" * 10**5 + "}",
    ],
)
def test_a_damaged_record_costs_its_model_only(store: Store, text: str) -> None:
    """It is left out, and the others are served."""
    put(store, b"one")
    put(store, b"other", name="other")
    (store.root / "models" / "other" / "model.json").write_text(text)
    assert [stored.name for stored in store.models()] == [NAME]
    assert store.record(NAME).name == NAME


@pytest.mark.parametrize("text", ["", '{"name": 1}', '{"name": "another", "origin": "x"}'])
def test_a_model_whose_record_is_damaged_can_be_deleted(store: Store, text: str) -> None:
    """By its whole name; the others stay."""
    put(store, b"one")
    put(store, b"other", name="other")
    (store.root / "models" / folder_name(NAME) / "model.json").write_text(text)
    with pytest.raises(ModelNotFound):
        store.remove("name:Q8_0")
    assert store.remove(NAME) > 3
    assert [folder.name for folder in (store.root / "models").iterdir()] == ["other"]


def test_a_model_whose_record_is_damaged_is_not_downloaded_again(store: Store) -> None:
    """Its files are those of the version that is wanted."""
    version = put(store, b"one")
    (store.root / "models" / folder_name(NAME) / "model.json").write_text("{")
    assert store.find(version.files[0]) == store.path(NAME, version)
    put(store, b"one")
    assert content(store) == b"one"


def test_a_record_that_cannot_be_read_just_now_is_not_written_anew(store: Store) -> None:
    """It says which version is active, and which one was before."""
    put(store, b"one")
    record = store.root / "models" / folder_name(NAME) / "model.json"
    record.rename(record.with_name("moved"))
    record.symlink_to(record)
    with pytest.raises(OSError, match="Too many levels"):
        put(store, b"two!")
    record.with_name("moved").replace(record)
    assert content(store) == b"one"


def test_links_in_a_circle_are_no_files(store: Store) -> None:
    """The system would look for their end without one."""
    version = put(store, b"one")
    path = store.path(NAME, version)
    path.unlink()
    path.symlink_to(path)
    put(store, b"other", name="other")
    assert [stored.name for stored in store.models()] == ["other"]


def test_a_manifest_with_a_path_that_no_system_takes_costs_its_model_only(store: Store) -> None:
    """Each step of it is fine; other downloads are looked for, too."""
    version = put(store, b"one")
    (file,) = version.files
    manifest = store.path(NAME, version).with_name("version.json")
    manifest.write_bytes(encode(replace(version, files=(replace(file, path="a/" * 5000 + "b"),))))
    put(store, b"other", name="other")
    assert [stored.name for stored in store.models()] == ["other"]
    assert store.find(file) is None


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("owner/name-GGUF:Q8_0", "name:Q8_0"),
        ("owner/name-onnx:cpu_and_mobile/cpu-int4", "name-onnx:cpu_and_mobile/cpu-int4"),
        ("name", "name"),
        ("-gguf", "-gguf"),
        ("owner/", "owner/"),
    ],
)
def test_a_short_name_is_never_empty(name: str, short: str) -> None:
    """No model can be named by nothing, and the settings would refuse all of them."""
    assert short_name(name) == short


def test_a_deletion_that_was_killed_is_finished_by_pruning(store: Store) -> None:
    """It is no model any more."""
    version = put(store, b"one")
    (store.path(NAME, version).parents[1] / "model.json").unlink()
    assert (store.records(), [waste.what for waste in store.prune()]) == (
        [],
        ["what is left of a deleted model"],
    )
    assert names(store.root) == []


def test_what_a_kill_leaves_behind_is_no_model(store: Store) -> None:
    """A version that was being put together; pruning takes it."""
    version = put(store, b"one")
    folder = store.path(NAME, version).parent
    half = folder.with_name(".new-123")
    half.mkdir()
    os.link(folder / "version.json", half / "version.json")
    assert [found.id for found in store.versions(NAME)] == [version.id]
    assert [waste.path for waste in store.waste()] == [half]
    store.prune()
    assert not half.exists()
