"""The file that says where the daemon is."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from pilotlight.registry.discovery import NUM_ELSEWHERE, Discovery, holder

ELSEWHERE = {"machine": "another", "boot": "another", "pids": "pid:[1]"}


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """With the process that wrote it."""
    Discovery(tmp_path / "state").write("http://127.0.0.1:1")
    running = Discovery(tmp_path / "state").read()
    assert running is not None
    assert (running.url, running.pid) == ("http://127.0.0.1:1", os.getpid())
    assert running.key_file == str(tmp_path / "state" / "admin.key")


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """File 0600 in a directory 0700, and nothing left beside it."""
    Discovery(tmp_path / "state").write("http://127.0.0.1:1")
    (file,) = (tmp_path / "state").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_dead_daemon_is_no_daemon(tmp_path: Path) -> None:
    """It was killed and could not remove its file."""
    Discovery(tmp_path).write("http://127.0.0.1:1")
    _edit(tmp_path, pid=_dead())
    assert Discovery(tmp_path).read() is None


def test_a_process_younger_than_the_entry_is_no_daemon(tmp_path: Path) -> None:
    """The daemon's pid was given to somebody else."""
    Discovery(tmp_path).write("http://127.0.0.1:1")
    _edit(tmp_path, started=1.0, born="")
    assert Discovery(tmp_path).read() is None


def test_a_process_that_has_the_daemons_pid_is_no_daemon(tmp_path: Path) -> None:
    """The machine was started anew, and the clock says nothing of it."""
    Discovery(tmp_path).write("http://127.0.0.1:1")
    running = Discovery(tmp_path).read()
    assert running is not None and running.born
    _edit(tmp_path, born=running.born[:-1])
    assert Discovery(tmp_path).read() is None


def test_a_daemon_is_found_whatever_became_of_the_clock(tmp_path: Path) -> None:
    """It was an hour late, or early, when the daemon started: the time of its process moves with it."""
    Discovery(tmp_path).write("http://127.0.0.1:1")
    for error_s in (3600, -3600):
        _edit(tmp_path, started=time.time() - error_s)
        assert _urls(tmp_path) == ["http://127.0.0.1:1"]


def test_an_entry_of_another_version_can_be_read(tmp_path: Path) -> None:
    """What is not known is left alone, and an older one does not say when its process began, or where."""
    Discovery(tmp_path).write("http://127.0.0.1:1")
    _edit(tmp_path, news="from tomorrow")
    entry = json.loads((tmp_path / "daemon.json").read_text())
    del entry["born"]
    entry.pop("place", None)
    (tmp_path / "daemon.json").write_text(json.dumps(entry))
    assert _urls(tmp_path) == ["http://127.0.0.1:1"]


def test_a_damaged_file_is_no_daemon(tmp_path: Path) -> None:
    """Whatever is in it."""
    deep = "[" * 100_000
    for text in ("", "{", "[]", "{}", deep, '{"url": 1}', '{"url":1,"pid":"x","version":1,"started":1}'):
        (tmp_path / "daemon.json").write_text(text)
        assert Discovery(tmp_path).read() is None


def test_a_daemon_removes_only_its_own_entry(tmp_path: Path) -> None:
    """One that started later with the same state directory stays findable."""
    discovery = Discovery(tmp_path)
    discovery.write("http://127.0.0.1:1")
    _edit(tmp_path, pid=os.getppid())
    discovery.remove()
    assert (tmp_path / "daemon.json").exists()
    _edit(tmp_path, pid=os.getpid())
    discovery.remove()
    assert not (tmp_path / "daemon.json").exists()


def test_a_daemon_that_lives_is_findable_again(tmp_path: Path) -> None:
    """Another one with its state directory came and went."""
    Discovery(tmp_path).write("http://127.0.0.1:1")
    _edit(tmp_path, pid=os.getppid(), born="")
    other = Discovery(tmp_path)
    other.write("http://127.0.0.1:2")
    assert _urls(tmp_path) == ["http://127.0.0.1:2"]
    other.remove()
    assert _urls(tmp_path) == ["http://127.0.0.1:1"]


def test_a_daemon_is_findable_after_others_that_were_killed(tmp_path: Path) -> None:
    """They could not put back what was there before, however many they were."""
    for number, pid in enumerate((os.getppid(), _dead(), _dead())):
        Discovery(tmp_path).write(f"http://127.0.0.1:{number}")
        _edit(tmp_path, pid=pid, born="")
    assert _urls(tmp_path) == ["http://127.0.0.1:0"]


def test_a_daemon_that_ends_is_not_findable_again(tmp_path: Path) -> None:
    """It has taken its entry back while a later one had the file, and drains as that one ends, too."""
    older = Discovery(tmp_path)
    older.write("http://127.0.0.1:1")
    entry = json.loads((tmp_path / "daemon.json").read_text())
    _edit(tmp_path, url="http://127.0.0.1:2", pid=os.getppid(), born="", before=[entry])
    older.remove()
    assert _urls(tmp_path) == ["http://127.0.0.1:2"]
    assert "before" not in json.loads((tmp_path / "daemon.json").read_text())


def test_all_daemons_that_live_are_found(tmp_path: Path) -> None:
    """The newest first, without those that were killed."""
    for number, pid in enumerate((os.getppid(), _dead())):
        Discovery(tmp_path).write(f"http://127.0.0.1:{number}")
        _edit(tmp_path, pid=pid, born="")
    Discovery(tmp_path).write("http://127.0.0.1:2")
    assert [one.url for one in Discovery(tmp_path).living()] == ["http://127.0.0.1:2", "http://127.0.0.1:0"]


def test_a_daemon_elsewhere_keeps_its_entry(tmp_path: Path) -> None:
    """On another machine or in a container, with our home: its pid says nothing here, though it be ours."""
    discovery = Discovery(tmp_path)
    for pid in (_dead(), os.getpid()):
        discovery.write(f"http://127.0.0.1:{pid}")
        _edit(tmp_path, pid=pid, place=ELSEWHERE, born="another 1")
        discovery.remove()
        assert _urls(tmp_path) == []
        discovery.write("http://127.0.0.1:1")
        assert [one.pid for one in Discovery(tmp_path).living()] == [os.getpid()]
        discovery.remove()
        kept = json.loads((tmp_path / "daemon.json").read_text())
        assert (kept["url"], kept["place"]) == (f"http://127.0.0.1:{pid}", ELSEWHERE)


def test_entries_of_other_places_do_not_pile_up(tmp_path: Path) -> None:
    """Containers that were killed take nothing back; the newest are kept."""
    for number in range(20):
        Discovery(tmp_path).write(f"http://127.0.0.1:{number}")
        _edit(tmp_path, place=ELSEWHERE)
    Discovery(tmp_path).write("http://127.0.0.1:20")
    _, *before = _all(tmp_path)
    assert before == [f"http://127.0.0.1:{number}" for number in range(19, 19 - NUM_ELSEWHERE, -1)]


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells which start of it this is")
def test_a_daemon_from_before_the_machine_was_started_anew_is_dropped(tmp_path: Path) -> None:
    """It is of this machine, so it has ended."""
    discovery = Discovery(tmp_path)
    discovery.write("http://127.0.0.1:1")
    running = discovery.read()
    assert running is not None and running.place is not None
    place = {"machine": running.place.machine, "boot": "earlier", "pids": running.place.pids}
    _edit(tmp_path, place=place, pid=os.getppid(), born="earlier 1")
    discovery.write("http://127.0.0.1:2")
    assert _all(tmp_path) == ["http://127.0.0.1:2"]


def test_an_entry_that_cannot_be_removed_stops_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is gone in a moment, and nobody believes it then."""
    discovery = Discovery(tmp_path)
    discovery.write("http://127.0.0.1:1")
    monkeypatch.setattr(Path, "unlink", Mock(side_effect=OSError("read-only")))
    discovery.remove()
    assert _urls(tmp_path) == ["http://127.0.0.1:1"]


def _urls(folder: Path) -> list[str]:
    running = Discovery(folder).read()
    return [] if running is None else [running.url]


def _all(folder: Path) -> list[str]:
    """What is in the file, whoever it is of."""
    entry = json.loads((folder / "daemon.json").read_text())
    return [one["url"] for one in (entry, *entry.get("before", ()))]


def test_the_holder_of_a_port_is_named() -> None:
    """By process name and pid."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert f"(pid {os.getpid()})" in (holder(server.getsockname()[1]) or "")


def _dead() -> int:
    """The pid of a process that has ended."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    return dead.pid


def _edit(folder: Path, **changes: object) -> None:
    file = folder / "daemon.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
