"""How a worker takes memory."""

import mmap
import platform
import sys
from pathlib import Path

import pytest

from mappings import bytes_held
from pilotlight.core import Model
from pilotlight.worker.handle import Worker
from pilotlight.worker.heap import let_go_of_files, with_huge_pages

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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets go of them")
def test_a_mapped_file_is_let_go_of_and_still_there(tmp_path: Path) -> None:
    """None of its pages is held until one is touched."""
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 2**20)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == b"x" * 2**20
        assert bytes_held("self", path) == 2**20
        let_go_of_files()
        assert bytes_held("self", path) == 0
        assert mapped[-1:] == b"x"
