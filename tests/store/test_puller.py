"""A pull from beginning to end, with a real download process and a runner that says what it is told to."""

import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from fake_hub import Hub
from pilotlight.core import Finished, FinishReason, Model, Request
from pilotlight.store import events
from pilotlight.store.events import Done, Event, Failed, Installed, Job, Progress
from pilotlight.store.pull import LONGEST_LINE, Puller
from pilotlight.store.smoke import Item, Smoke
from pilotlight.store.store import Store
from serving import on_path

REPO, FILE, NAME = "owner/tiny-GGUF", "tiny-F32.gguf", "owner/tiny-GGUF:F32"


class Runner:
    """Whatever is asked, it says four tokens."""

    @asynccontextmanager
    async def trying(self, model: Model, request: Request) -> AsyncIterator[AsyncIterator[list[Item]]]:
        async def answer() -> AsyncIterator[list[Item]]:
            yield [Finished(0, FinishReason.LENGTH, 4, 0)]

        yield answer()


@pytest.fixture
def puller(hub: Hub, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Puller:
    """Into the store, from the hub of the test."""
    hub.commit_files(REPO, {FILE: b"GGUF and more"})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return Puller(store, Smoke(Runner()), lambda name, path: Model(name, path))


def job(store: Store) -> Job:
    return Job(REPO, "", str(store.root), stall_s=5.0, retry_s=0.0)


async def test_a_pull_ends_with_an_active_version(puller: Puller, anyio_backend: str) -> None:
    """Downloaded and tested; the second time there is nothing to do."""
    said: list[Event] = []
    end = await puller.pull(job(puller.store), said.append)
    assert isinstance(end, Done)
    assert [stored.version.id for stored in puller.store.models()] == [end.version]
    assert [type(event) for event in said if not isinstance(event, Progress)][1:] == [
        Installed,
        events.Testing,
    ]
    assert await puller.pull(job(puller.store), said.append) == Done(NAME, end.version, None, is_new=False)


async def test_a_version_that_is_deleted_before_its_test_is_told(puller: Puller, anyio_backend: str) -> None:
    """By hand, as soon as it was there."""

    def delete(event: Event) -> None:
        if isinstance(event, Installed):
            (manifest,) = puller.store.root.glob(f"models/*/{event.version}/version.json")
            shutil.rmtree(manifest.parent)

    end = await puller.pull(job(puller.store), delete)
    assert isinstance(end, Failed)
    assert (end.code, "was deleted before it was tested; pull it again" in end.message) == (
        "pull_failed",
        True,
    )


@pytest.mark.parametrize("moment", [Installed, events.Testing])
async def test_a_version_that_is_not_active_yet_is_not_pruned(
    puller: Puller, anyio_backend: str, moment: type[Event]
) -> None:
    """While the pull that wants it goes on; afterwards it is what is not served that goes."""
    pruned: list[str] = []

    def prune(event: Event) -> None:
        if isinstance(event, moment):
            pruned.extend(waste.what for waste in puller.store.prune())

    end = await puller.pull(job(puller.store), prune)
    assert isinstance(end, Done)
    assert pruned == []
    (puller.store.path(NAME, puller.store.versions(NAME)[0]).parent.parent / "old").mkdir()
    assert [waste.what for waste in puller.store.prune()] == [f"{NAME}, version old"]
    assert {path.name for path in puller.store.root.rglob("*.lock")} <= {"store.lock"}


class Watched(Store):
    """Notes in which threads a version begins and ceases to be kept."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.threads: list[int] = []

    @contextmanager
    def keeping(self, name: str, version_id: str) -> Iterator[None]:
        with super().keeping(name, version_id):
            self.threads.append(threading.get_ident())
            yield
        self.threads.append(threading.get_ident())


async def test_a_pull_keeps_its_version_beside_the_event_loop(puller: Puller, anyio_backend: str) -> None:
    """On a drive that hangs it is this pull that stands still, and nothing else."""
    store = Watched(puller.store.root)
    assert isinstance(await replace(puller, store=store).pull(job(store), lambda event: None), Done)
    assert (len(store.threads), threading.get_ident() in store.threads) == (2, False)


@pytest.mark.parametrize("place", ["store_dir", "reference"])
async def test_what_is_no_text_cannot_be_pulled(puller: Puller, anyio_backend: str, place: str) -> None:
    """A folder or a name with other bytes than UTF-8 has; it is told so that it can be written down."""
    end = await puller.pull(replace(job(puller.store), **{place: "/models-\udcff"}), lambda event: None)
    assert isinstance(end, Failed)
    assert (end.code, end.message) == ("pull_failed", "'/models-\\udcff' is no UTF-8, so nothing is pulled")


async def test_a_name_that_makes_no_folder_is_told_before_anything_comes(
    hub: Hub, puller: Puller, anyio_backend: str
) -> None:
    """Here one of a million letters, each step of which is fine."""
    folder = f"{'a' * 190}/" * 6000
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights"}
    hub.commit_files(REPO, {folder + name: content for name, content in files.items()})
    end = await puller.pull(job(puller.store), lambda event: None)
    assert isinstance(end, Failed)
    assert (end.code, "longer than 200 bytes" in end.message) == ("invalid_value", True)


@pytest.mark.parametrize("line", ["nonsense", "a" * LONGEST_LINE])
async def test_what_makes_no_sense_ends_a_pull(
    puller: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str, line: str
) -> None:
    """No event, or more than one can be."""
    said = f"import os; print({line!r}, flush=True); os._exit(0)"
    for name, value in on_path(tmp_path / "path", sitecustomize=said).items():
        monkeypatch.setenv(name, value)
    end = await puller.pull(job(puller.store), lambda event: None)
    assert isinstance(end, Failed)
    assert (end.code, "makes no sense; what has come is kept" in end.message) == ("pull_failed", True)
