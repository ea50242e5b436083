"""The answers of a batch are what it knows of its progress, also after a crash."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from fake_inference import answers
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotlight.batch.journal import Entry, Journal, NotRun, Response
from pilotlight.batch.records import Counts, Usage
from pilotlight.registry import private_file

BATCH = "batch_" + "0" * 24
USAGE = b'{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}'
BODY = b'{"text":"x","usage":%s}' % USAGE


def opened(folder: Path, num_lines: int = 4) -> Journal:
    return Journal(BATCH, num_lines, folder / "output", folder / "errors")


def entry(journal: Journal, number: int, status: int = 200) -> Entry:
    body = msgspec.Raw(BODY if status == 200 else b'{"error":{}}')
    return Entry(journal.entry_id(number), f"r{number}", Response(status, "req_1", body))


def test_answers_and_errors_are_told_apart(tmp_path: Path) -> None:
    """Each line is in one file, as OpenAI writes it; what did not run is no failure."""
    with opened(tmp_path) as journal:
        journal.add(entry(journal, 2))
        journal.add(entry(journal, 0, status=400))
        journal.add(Entry(journal.entry_id(1), "r1", None, NotRun("batch_expired", "too late")))
        assert journal.pending == [3]
        assert (journal.counts, journal.usage) == (Counts(4, 1, 1), Usage(5, 1, 2))
    (answer,) = answers(tmp_path / "output")
    assert (answer["custom_id"], answer["response"]["status_code"], answer["error"]) == ("r2", 200, None)
    failed, expired = answers(tmp_path / "errors")
    assert failed["response"]["body"] == {"error": {}}
    assert (expired["response"], expired["error"]["code"]) == (None, "batch_expired")


def test_an_answer_is_one_line_for_every_reader(tmp_path: Path) -> None:
    """Some take more characters for the end of one than JSON does."""
    name = "a\u2028b\u2029c\x85d"
    body = msgspec.Raw(msgspec.json.encode({"error": {"message": name}}))
    with opened(tmp_path) as journal:
        journal.add(Entry(journal.entry_id(0), name, Response(400, "req_1", body)))
        journal.add(Entry(journal.entry_id(1), name, None, NotRun("batch_expired", "too late")))
    failed, expired = answers(tmp_path / "errors")
    assert (failed["custom_id"], failed["response"]["body"]["error"]["message"]) == (name, name)
    assert expired["custom_id"] == name
    with opened(tmp_path) as again:
        assert again.pending == [2, 3]


def test_what_is_there_is_known_after_opening_it_again(tmp_path: Path) -> None:
    """The same counts, and the same lines left."""
    with opened(tmp_path) as journal:
        for number, status in ((3, 200), (1, 500)):
            journal.add(entry(journal, number, status))
    with opened(tmp_path) as again:
        assert (again.pending, again.counts, again.usage) == ([0, 2], journal.counts, journal.usage)


def test_what_is_opened_again_is_written_anew(tmp_path: Path) -> None:
    """It may never have reached the disk, and the system has told so already, to somebody else."""
    with opened(tmp_path) as journal:
        journal.add(entry(journal, 0))
        before = (tmp_path / "output").stat()
        content = (tmp_path / "output").read_bytes()
        with opened(tmp_path) as again:
            again.add(entry(again, 1))
    assert (tmp_path / "output").stat().st_ino != before.st_ino
    assert (tmp_path / "output").read_bytes().startswith(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors", "output"]


@pytest.mark.parametrize("is_told", [False, True])
def test_without_room_for_a_new_file_it_goes_on_with_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    """Told by the disk, or only when it is written to: a quota. A batch must end on a full disk, too."""
    with opened(tmp_path) as journal:
        journal.add(entry(journal, 0))
    whole = (tmp_path / "output").read_bytes()
    (tmp_path / "output").write_bytes(whole + b'{"torn')
    free = len(whole) if is_told else 2**40
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    def write_pieces(*_: object, **__: object) -> None:
        assert not is_told
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(private_file, "write_pieces", write_pieces)
    with opened(tmp_path) as again:
        assert again.pending == [1, 2, 3]
        again.add(entry(again, 1))
    assert (tmp_path / "output").read_bytes().startswith(whole)
    with opened(tmp_path) as last:
        assert last.pending == [2, 3]


@settings(deadline=None)
@given(cut=st.integers(0, 3000))
def test_a_torn_file_goes_on_where_it_is_whole(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wherever a crash cut it off: in the end each line is there once."""
    folder = tmp_path_factory.mktemp("torn")
    with opened(folder, 6) as journal:
        for number in range(5):
            journal.add(entry(journal, number))
    size = (folder / "output").stat().st_size
    os.truncate(folder / "output", min(cut, size))
    with opened(folder, 6) as journal:
        for number in journal.pending:
            journal.add(entry(journal, number))
    assert sorted(answer["custom_id"] for answer in answers(folder / "output")) == [f"r{n}" for n in range(6)]


@pytest.mark.parametrize(
    "foreign",
    [b"{}\n", b"\0\0\0\0\n", b"not json\n", b'{"id":"batch_req_1-0","response":null}\n',
     b'{"id":"batch_req_000000000000000000000000-9","response":null}\n',
     b'{"id":"batch_req_000000000000000000000000--1","response":null}\n',
     b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"],
)  # fmt: skip
def test_what_is_no_answer_of_this_batch_is_cut_off(tmp_path: Path, foreign: bytes) -> None:
    """As a file system may leave it after a power cut; also a second answer to the same line."""
    with opened(tmp_path) as journal:
        journal.add(entry(journal, 0))
    whole = (tmp_path / "output").read_bytes()
    (tmp_path / "output").write_bytes(whole + foreign + whole)
    with opened(tmp_path) as journal:
        assert journal.pending == [1, 2, 3]
    assert (tmp_path / "output").read_bytes() == whole


@pytest.mark.parametrize("spoil", [Path.mkdir, lambda errors: errors.symlink_to(errors)])
def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Who tries again and again would run out of files. One is a folder here, or leads to itself."""
    spoil(tmp_path / "errors")
    with pytest.raises(OSError, match=r"Is a directory|Too many levels"):
        opened(tmp_path)
    assert not [link for link in Path("/proc/self/fd").iterdir() if link.resolve().parent == tmp_path]


def test_lines_end_alike_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has text files is asked for none."""
    open_file, asked = os.open, []

    def opening(path: Path, flags: int, mode: int) -> int:
        asked.append(flags & os.O_SYNC)
        return open_file(path, flags, mode)

    monkeypatch.setattr(os, "O_BINARY", os.O_SYNC, raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opening)
        opened(tmp_path).close()
    assert asked == [os.O_SYNC] * 2


def test_a_second_answer_is_a_bug(tmp_path: Path) -> None:
    """Nobody asks for one."""
    with opened(tmp_path) as journal:
        journal.add(entry(journal, 0))
        with pytest.raises(AssertionError, match="answered before"):
            journal.add(entry(journal, 0))


def test_an_answer_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is on the disk when that is full."""
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) > 50:
            return write(descriptor, data[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path) as journal:
        journal.add(entry(journal, 0))
        whole = (tmp_path / "output").read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                journal.add(entry(journal, 1))
        assert (tmp_path / "output").read_bytes() == whole
        assert journal.pending == [1, 2, 3]
        journal.add(entry(journal, 1))
    assert len(answers(tmp_path / "output")) == 2
