"""A hub on this machine and the download process, run for real."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from downloads import Download

from fake_hub import Hub
from fake_hub import hub as fake_hub
from pilotlight.store.events import Job
from pilotlight.store.store import Store
from serving import clean_environ


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with fake_hub() as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def download(hub: Hub, store: Store, tmp_path: Path) -> Iterator[Callable[..., Download]]:
    """Start a download into the store, from the hub of the test."""
    started = []

    def download(
        reference: str,
        *,
        stall_s: float = 30.0,
        retry_s: float = 0.0,
        limit_bytes: int | None = None,
        disk_bytes: int | None = None,
        is_fresh: bool = False,
        **environ: str,
    ) -> Download:
        job = Job(reference, "", str(store.root), stall_s=stall_s, retry_s=retry_s)
        private = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
        one = Download(
            job,
            clean_environ() | private | environ,
            limit_bytes=limit_bytes,
            disk_bytes=disk_bytes,
            is_fresh=is_fresh,
        )
        started.append(one)
        return one

    yield download
    for one in started:
        one.close()
