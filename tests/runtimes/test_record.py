"""The files of an archive: what is written is read again, and anything else is refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotlight.runtimes.archive import record
from pilotlight.runtimes.archive.record import Form, Header, RecordError

ARRAYS = [np.arange(24, dtype=np.uint8), np.ones((2, 3), np.float16), np.zeros((1, 2, 2), np.float32)]


def header(arrays: record.Arrays = ARRAYS) -> Header:
    return Header(b"key", b"\1\0\0\0", tuple(map(Form.of, arrays)), "Hi!", b"\2\0\0\0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record with `ARRAYS`."""
    path = tmp_path / "one.kv"
    assert record.write(path, header(), ARRAYS, lambda: False)
    return path


def load(path: Path) -> record.Arrays:
    """As a worker does: the header first."""
    return record.read(path, record.read_header(path))


def test_what_was_written_is_read_again(path: Path) -> None:
    """The header by itself, too."""
    assert record.read_header(path) == header()
    for read, written in zip(load(path), ARRAYS, strict=True):
        assert read.dtype == written.dtype
        assert np.array_equal(read, written)


def test_its_size_is_known_before(path: Path) -> None:
    """Or a little more, so that room can be made."""
    assert path.stat().st_size <= record.num_bytes(header()) <= path.stat().st_size + 2048


def test_only_its_owner_may_read_it(path: Path) -> None:
    """And nothing else is left in the folder."""
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [path.name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_that_differs_is_found(path: Path, data: st.DataObject) -> None:
    """In the header, in the arrays, or in a sum."""
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    damaged = path.with_name("damaged.kv")
    damaged.write_bytes(whole)
    damaged.chmod(0o600)
    with pytest.raises(RecordError):
        load(damaged)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_other_length_is_found(path: Path, data: st.DataObject) -> None:
    """Shorter, or with something behind."""
    whole = path.read_bytes()
    length = data.draw(st.integers(0, len(whole) + 9).filter(lambda length: length != len(whole)))
    damaged = path.with_name("damaged.kv")
    damaged.write_bytes((whole + b"123456789")[:length])
    damaged.chmod(0o600)
    with pytest.raises(RecordError):
        load(damaged)


def forged(path: Path, head: bytes, length: int | None = None, version: int = record.VERSION) -> None:
    """A file whose sums are right, whatever its header says."""
    digest = record.DIGEST(head).digest()
    lead = record._LEAD.pack(record.MAGIC, version, len(head) if length is None else length, digest)
    path.write_bytes(lead + head + record.DIGEST(digest).digest())
    path.chmod(0o600)


def with_forms(*forms: Form) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(header(), forms=forms))


FORGED: dict[str, Callable[[Path], None]] = {
    "another version": lambda path: forged(path, with_forms(), version=record.VERSION + 1),
    "a header of gigabytes": lambda path: forged(path, with_forms(), length=2**32 - 1),
    "an array of exabytes": lambda path: forged(path, with_forms(Form("uint8", (2**60,)))),
    "a size beyond all numbers": lambda path: forged(path, with_forms(Form("float32", (2**62, 2**62)))),
    "a size below nothing": lambda path: forged(path, with_forms(Form("uint8", (-1, -1)))),
    "sizes that cancel out": lambda path: forged(
        path, with_forms(Form("uint8", (2**40,)), Form("uint8", (-(2**40),)))
    ),
    "an array of objects": lambda path: forged(path, with_forms(Form("object", (1,)))),
    "no header at all": lambda path: forged(path, b"\xc1"),
    "a header of other things": lambda path: forged(path, msgspec.msgpack.encode(["a", 1])),
    "an empty file": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_writer_makes_is_refused(path: Path, what: str) -> None:
    """Before anything of that size is asked for."""
    FORGED[what](path)
    with pytest.raises(RecordError):
        load(path)


def test_a_file_that_others_may_read_is_none_of_ours(path: Path) -> None:
    """Nor one that they may write."""
    for mode in (0o640, 0o602):
        path.chmod(mode)
        with pytest.raises(RecordError):
            record.read_header(path)


def test_a_link_is_not_followed(path: Path) -> None:
    """Whatever it leads to."""
    link = path.with_name("link.kv")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        record.read_header(link)


def test_a_file_that_took_its_place_is_found(path: Path) -> None:
    """Between the look at its header and the read."""
    known = record.read_header(path)
    other = [np.arange(24, dtype=np.uint8)]
    assert record.write(path, header(other), other, lambda: False)
    with pytest.raises(RecordError, match="another file"):
        record.read(path, known)


def test_one_that_takes_too_long_is_not_there(tmp_path: Path) -> None:
    """Nor a part of it."""
    large = [np.zeros(3 * record.PIECE_BYTES, np.uint8)]
    answers = iter([False, False, True])
    assert not record.write(tmp_path / "one.kv", header(large), large, lambda: next(answers))
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from pilotlight.runtimes.archive import record
from pilotlight.runtimes.archive.record import Form, Header
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
arrays = [np.zeros(int(sys.argv[2]), np.uint8)]
header = Header(b"", b"", tuple(map(Form.of, arrays)), "", b"")
try:
    record.write(Path(sys.argv[1]), header, arrays, lambda: False)
except OSError as error:
    print("failed:", error.strerror)
"""


@pytest.mark.parametrize("num_bytes", [1_000_000, 1])
def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path, num_bytes: int) -> None:
    """The system refuses in the middle of a write, or not before the file is closed."""
    arguments = [sys.executable, "-c", FULL, str(tmp_path / "one.kv"), str(num_bytes)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("failed: File too large")
    assert not list(tmp_path.iterdir())


def test_what_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    """Something else has the name."""
    (tmp_path / "one.kv").mkdir()
    with pytest.raises(OSError, match=r"one\.kv"):
        record.write(tmp_path / "one.kv", header(), ARRAYS, lambda: False)
    assert os.listdir(tmp_path) == ["one.kv"]
