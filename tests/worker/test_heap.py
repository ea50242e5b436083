"""How a worker takes memory."""

import platform
from pathlib import Path

import pytest

from pilotlight.core import Model
from pilotlight.worker.handle import Worker
from pilotlight.worker.heap import with_huge_pages

OURS = "glibc.malloc.hugetlb=1"
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("given", "tunables"),
    [
        ({}, OURS),
        ({"GLIBC_TUNABLES": ""}, OURS),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=3"}, f"glibc.malloc.check=3:{OURS}"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
    ],
)
def test_huge_pages_are_asked_for_unless_the_user_has_decided(given: dict[str, str], tunables: str) -> None:
    assert with_huge_pages({"HOME": "/h", **given}) == {"HOME": "/h", "GLIBC_TUNABLES": tunables}


def _asking_helps() -> bool:
    library, version = platform.libc_ver()
    is_new = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return is_new and THP.exists() and "[madvise]" in THP.read_text()


@pytest.mark.skipif(not _asking_helps(), reason="huge pages are for all here, or for nobody")
async def test_weights_may_lie_in_huge_pages(tiny_gguf: Path) -> None:
    """The system says so of the worker's memory (`hg`, `proc_pid_smaps(5)`)."""
    worker = await Worker.spawn(Model("tiny", tiny_gguf))
    try:
        await worker.load("full", lambda _: None, 20)
        flags = _flags(worker.pid)
    finally:
        await worker.stop()
    assert any("hg" in one for one in flags)


def _flags(pid: int) -> list[list[str]]:
    """Of each mapping."""
    lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    return [line.split()[1:] for line in lines if line.startswith("VmFlags:")]
