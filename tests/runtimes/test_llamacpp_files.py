"""Files that are no models: the worker says so, or ends; nobody else is harmed.

Loaded in real workers, because native code may die of them or ask for all memory.
"""

import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotlight.core import Model
from pilotlight.worker.handle import LoadRefusedError, Worker, WorkerEndedError

LOAD_S = 20.0

PEAK_BYTES = 2 * 2**30
"""Far above what a worker needs to find out."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def good(tiny_gguf: Path) -> bytes:
    """A model, to be damaged."""
    return tiny_gguf.read_bytes()


def _header(tensors: int, values: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


BAD: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "no gguf": lambda good: b"PK\x03\x04" + good[4:],
    "only the magic": lambda good: b"GGUF",
    "another version": lambda good: b"GGUF" + struct.pack("<I", 999) + good[8:],
    "cut in the header": lambda good: good[:20],
    "cut in the vocabulary": lambda good: good[:3000],
    "cut in the weights": lambda good: good[: len(good) // 2],
    "cut at the last byte": lambda good: good[:-1],
    "noise after the magic": lambda good: b"GGUF" + bytes(range(7, 256)) * 40,
    "zeros after the magic": lambda good: b"GGUF" + bytes(4096),
    "too many tensors": lambda good: _header(2**62, 0),
    "many values": lambda good: _header(0, 2**40) + bytes(64),
    "a string of exabytes": lambda good: _header(0, 1) + struct.pack("<Q", 2**60) + b"x" * 64,
    "an array of exabytes": lambda good: (
        _header(0, 1) + _string(b"a") + struct.pack("<IIQ", 9, 8, 2**60) + bytes(64)
    ),
    "nothing in it": lambda good: _header(0, 0),
}


async def _load(path: Path) -> None:
    worker = await Worker.spawn(Model("bad", path, context=256, parallel=1, threads=1))
    try:
        await worker.load("full", lambda _: None, LOAD_S)
    finally:
        await worker.stop()


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_file_is_refused(good: bytes, tmp_path: Path, name: str) -> None:
    """With a reason, and without taking gigabytes."""
    path = tmp_path / "bad.gguf"
    path.write_bytes(BAD[name](good))
    with pytest.raises(LoadRefusedError) as caught:
        await _load(path)
    assert "bad.gguf" in str(caught.value)
    # A child begins as a copy of us, who may hold the models of other tests.
    ours, theirs = (
        resource.getrusage(whose).ru_maxrss for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    assert theirs * 1024 < max(PEAK_BYTES, ours * 1024 + 1)


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(LoadRefusedError, match="is not a file"):
        await _load(tmp_path)


async def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(LoadRefusedError, match="does not exist"):
        await _load(tmp_path / "none.gguf")


async def test_a_good_file_is_loaded(tiny_gguf: Path) -> None:
    """In the same way."""
    await _load(tiny_gguf)


@pytest.mark.parametrize("at", [5000, 60_000])
async def test_a_damaged_file_harms_only_its_worker(good: bytes, tmp_path: Path, at: int) -> None:
    """It may load, be refused, or kill the worker; the daemon hears which."""
    raw = bytearray(good)
    raw[at : at + 64] = b"\xff" * 64
    (path := tmp_path / "bad.gguf").write_bytes(raw)
    try:
        await _load(path)
    except (LoadRefusedError, WorkerEndedError) as exc:
        assert str(exc)
