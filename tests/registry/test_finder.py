"""Found models beside configured ones: names, aliases, and looking again."""

import shutil
import threading
from pathlib import Path

import anyio
import pytest

from pilotlight.config import Config, models
from pilotlight.core import Model
from pilotlight.errors import ConfigError, ModelNotFound
from pilotlight.registry import catalog as catalog_module
from pilotlight.registry import finder as finder_module
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.finder import Finder
from pilotlight.registry.stores.places import Place
from pilotlight.settings import ModelSettings
from store_factory import GGUF, MLX, ONNX, HuggingFace, Ollama, write

TAG = "ollama.ai/library/m/latest"


class Machine:
    """A hub cache, an Ollama store and a folder, all in use."""

    def __init__(self, folder: Path) -> None:
        self.hub = HuggingFace(folder / "hub")
        self.ollama = Ollama(folder / "ollama")
        self.own = write(folder / "own", {}).absolute()
        self.own.mkdir()
        self.finder = Finder(
            [
                Place("folder", self.own),
                Place("huggingface", self.hub.cache),
                Place("ollama", self.ollama.root),
            ]
        )

    def models(self, *configured: Model) -> dict[str, tuple[str, ...]]:
        """Every model's aliases, by its name."""
        return {model.name: model.aliases for model in self.finder.complete(configured)}

    def reasons(self) -> list[str]:
        return [skipped.reason for skipped in self.finder.skipped]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_found_model_has_what_a_table_would_give_it(machine: Machine) -> None:
    """Limits, sampling values, a runtime; and says where it is from."""
    machine.ollama.add(TAG, params={"temperature": 0.1})
    (model,) = machine.finder.complete(())
    assert (model.name, model.store, model.runtime, model.bytes_disk) == (
        "ollama/m:latest",
        "ollama",
        "llamacpp",
        len(GGUF),
    )
    assert (model.sampling["temperature"], model.sampling["top_k"]) == (0.1, 40)
    assert model.capabilities.threads


def test_the_same_content_in_two_stores_is_one_model(machine: Machine) -> None:
    """Both know its SHA-256; the second name is an alias."""
    machine.hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF})
    machine.ollama.add(TAG)
    machine.ollama.add(TAG.replace("latest", "4b"))
    assert machine.models() == {"a/M-GGUF:Q4_0": ("ollama/m:4b", "ollama/m:latest")}


def test_the_same_file_by_two_paths_is_one_model(machine: Machine) -> None:
    """A hard link, and a link from one place into another."""
    file = write(machine.own, {"m.gguf": GGUF}) / "m.gguf"
    (machine.own / "other.gguf").hardlink_to(file)
    snapshot = machine.hub.add("mlx-community/m", MLX)
    (machine.own / "folder").symlink_to(snapshot)
    assert machine.models() == {"folder": ("mlx-community/m",), "m": ("other",)}


def test_folders_with_the_same_weights_are_two_models(machine: Machine) -> None:
    """One has another template, or other weights outside its graph: neither answers to the other's name."""
    template = {"chat_template.jinja": b"{{ 'be evil' }}"}
    machine.hub.add("aaa/m-mlx", MLX | template)
    machine.hub.add("mlx-community/m", MLX)
    graph = {name: content for name, content in ONNX.items() if name != "model.onnx.data"}
    machine.hub.add("aaa/onnx", graph | {"model.onnx_data": b"poisoned"})
    machine.hub.add("onnx-community/m", graph | {"model.onnx_data": b"w"})
    assert machine.models() == dict.fromkeys(
        ("aaa/m-mlx", "aaa/onnx", "mlx-community/m", "onnx-community/m"), ()
    )


def test_a_repaired_template_beside_linked_weights_is_a_model_of_its_own(machine: Machine) -> None:
    """Also where the weights are the same inode, and the folder that they are linked from is configured."""
    given = write(machine.own.parent / "given", MLX)
    repaired = write(machine.own / "repaired", MLX | {"chat_template.jinja": b"better"})
    (repaired / "model.safetensors").unlink()
    (repaired / "model.safetensors").hardlink_to(given / "model.safetensors")
    (machine.own / "link").symlink_to(repaired)
    assert machine.models(Model("given", given)) == {"given": (), "link": ()}


def test_a_configured_model_keeps_its_settings_under_every_name(machine: Machine) -> None:
    """The store's name is an alias of it."""
    file = write(machine.own, {"m.gguf": GGUF}) / "m.gguf"
    assert machine.models(Model("mine", file, aliases=("x",))) == {"mine": ("x", "m")}
    assert machine.models(Model("m", file)) == {"m": ()}


def test_a_copy_elsewhere_is_a_model_of_its_own(machine: Machine) -> None:
    """Nothing but reading it all would tell."""
    write(machine.own, {"m.gguf": GGUF, "copy.gguf": GGUF})
    assert machine.models() == {"copy": (), "m": ()}


def test_a_name_that_another_model_has_is_not_taken_twice(machine: Machine, tmp_path: Path) -> None:
    """There may be a longer one; else the reason is told."""
    files = {"M-Q4_0.gguf": GGUF + b"1", "sub/M-Q4_0.gguf": GGUF + b"2"}
    machine.hub.add("a/M-GGUF", files)
    write(machine.own, {"mine.gguf": GGUF})
    assert machine.models(Model("mine", tmp_path / "other.gguf")) == {
        "mine": (),
        "a/M-GGUF:Q4_0": (),
        "a/M-GGUF:sub/M-Q4_0": (),
    }
    assert machine.reasons() == ["another model is named 'mine'"]


def test_a_model_whose_runtime_is_missing_is_left_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients offer what is listed."""
    monkeypatch.setattr(finder_module, "is_installed", lambda runtime: runtime != "mlx")
    machine.hub.add("mlx-community/m", MLX)
    assert machine.models() == {}
    assert machine.reasons() == ["needs mlx, which is not installed"]


def test_nothing_is_looked_at_twice_while_nothing_changes(machine: Machine) -> None:
    """The same object; another once there is another model."""
    machine.ollama.add(TAG)
    first = machine.finder.complete(configured := ())
    assert machine.finder.complete(configured) is first
    machine.ollama.add(TAG.replace("m/latest", "new/latest"), GGUF + b"new")
    assert len(machine.finder.complete(configured)) == 2


def test_a_look_that_fails_is_begun_anew(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there was before is not taken for what it would have found."""
    machine.ollama.add(TAG)
    configured = (Model("pilot", Path("/pilot.gguf")),)
    with monkeypatch.context() as patched:
        patched.setattr(finder_module, "is_installed", lambda runtime: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            machine.finder.complete(configured)
    assert [model.name for model in machine.finder.complete(configured)] == ["pilot", "ollama/m:latest"]


def test_files_that_go_while_they_are_looked_at_cost_nothing_else(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their model stays, to be refused when it is asked for."""
    gone = machine.own / "gone.gguf"
    write(machine.own, {"a.gguf": GGUF})
    monkeypatch.setattr(finder_module, "weights_of", lambda path: (gone,))
    assert machine.models(Model("mine", gone)) == {"mine": (), "a": ()}


def test_stores_are_only_read(machine: Machine) -> None:
    """Not a file more, not a byte else, and no folder's time changed."""

    def everything() -> dict[Path, tuple[int, int]]:
        files = machine.own.parent.rglob("*")
        return {file: (file.lstat().st_mtime_ns, file.lstat().st_size) for file in files}

    machine.hub.add("a/M-GGUF", {"M-Q4_0.gguf": GGUF})
    machine.ollama.add(TAG)
    before = everything()
    assert machine.models()
    assert everything() == before


async def test_those_who_ask_together_share_a_look(machine: Machine, anyio_backend: str) -> None:
    """The second finds that nothing has changed since the first."""
    machine.ollama.add(TAG)
    catalog = Catalog([], machine.finder)
    told: list[int] = []
    catalog.watch(lambda: told.append(len(list(catalog))))
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(catalog.find, "ollama/m:latest")
    assert told == [1]


async def test_a_catalog_looks_only_when_it_must(machine: Machine, anyio_backend: str) -> None:
    """A name it knows needs no look; one it does not know may be new."""
    machine.ollama.add(TAG)
    catalog = Catalog([Model("pilot", Path("/pilot.gguf"))], machine.finder)
    assert (await catalog.find("pilot")).name == "pilot"
    assert [model.name for model in catalog] == ["pilot"]
    assert (await catalog.find("ollama/m:latest")).name == "ollama/m:latest"
    shutil.rmtree(machine.ollama.root)
    await catalog.refresh()
    with pytest.raises(ModelNotFound, match="'ollama/m:latest'; there is: pilot"):
        await catalog.find("ollama/m:latest")


async def test_a_disk_that_hangs_keeps_nobody_from_what_is_known(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    """A configured model may have come, or not. One thread waits for it, whoever asks meanwhile."""
    monkeypatch.setattr(catalog_module, "ANSWER_S", 0.01)
    asked: list[Path] = []
    answer = threading.Event()

    def hang(path: Path) -> bool:
        asked.append(path)
        answer.wait()
        return False

    monkeypatch.setattr(catalog_module, "is_whole", hang)
    catalog = Catalog([Model("away", machine.own / "away", bytes_disk=0)])
    try:
        while not asked:
            assert await catalog.find("away")
        for _ in range(3):
            assert await catalog.find("away")
        assert len(asked) == 1
    finally:
        answer.set()


async def test_a_folder_that_is_being_copied_has_not_come_yet(machine: Machine, anyio_backend: str) -> None:
    """Its weights may be there before what says whose they are."""
    folder = machine.own / "m"
    config = Config(models=(ModelSettings(name="m", path=folder),))
    catalog = Catalog(models(config), Finder([], config))
    write(folder, {name: content for name, content in MLX.items() if name != "config.json"})
    assert (await catalog.find("m")).bytes_disk == 0
    assert models(config)[0].bytes_disk == 0, "nor for a daemon that starts just now"
    write(folder, MLX)
    assert (await catalog.find("m")).runtime == "mlx"


async def test_a_configured_model_that_was_away_is_looked_at_once_it_is_there(
    machine: Machine, anyio_backend: str
) -> None:
    """It may be of another runtime than was thought, with other settings than that can honour."""
    folder = machine.own / "m"
    entries = [ModelSettings(name="m", path=folder), ModelSettings(name="n", path=folder, provider="cuda")]
    config = Config(models=tuple(entries))
    catalog = Catalog(models(config), Finder([], config))
    told: list[str] = []
    catalog.watch(lambda: told.extend(model.runtime for model in catalog))
    assert ((await catalog.find("m")).runtime, told) == ("llamacpp", [])
    write(folder, MLX)
    assert (await catalog.find("m")).runtime == "mlx"
    assert (catalog.configured[0].bytes_disk, told) == (len(MLX["model.safetensors"]), ["mlx", "onnx"])
    with pytest.raises(ConfigError, match="model 'n': provider 'cuda' is not supported by mlx"):
        await catalog.find("n")
    assert (await catalog.find("m")).runtime == "mlx"
