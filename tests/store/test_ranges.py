"""Large files come in pieces, several at a time, where a server does that properly; else by one stream."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from downloads import Download, names

from fake_hub import Fault, Hub
from pilotlight.store.ranges import NUM_STREAMS, PIECE_BYTES
from pilotlight.store.store import Store

Start = Callable[..., Download]

REPO, FILE = "someone/large-GGUF", "large-Q4_K_M.gguf"

CONTENT = random.Random(2).randbytes(5 * PIECE_BYTES + 12345)

BEGINS = range(0, len(CONTENT), PIECE_BYTES)

PIECES = [f"bytes={begin}-{min(begin + PIECE_BYTES, len(CONTENT)) - 1}" for begin in BEGINS]

HEAD = Fault("none")
"""What is asked for first, to learn what the server can."""


@pytest.fixture
def repo(hub: Hub) -> str:
    """With one file, from a host that can do ranges."""
    hub.commit_files(REPO, {FILE: CONTENT})
    hub.etags[FILE] = '"mark"'
    return REPO


def installed(store: Store) -> bool:
    """The file is there as it should be, and nothing else."""
    (version,) = store.versions(f"{REPO}:Q4_K_M")
    assert names(store.root / "incoming") == []
    return store.path(f"{REPO}:Q4_K_M", version).read_bytes() == CONTENT


def ranges(hub: Hub) -> list[str | None]:
    """What was asked for of the file."""
    return [headers.get("range") for headers in hub.downloads(FILE)]


def is_one_stream(hub: Hub) -> bool:
    """It was asked for all the rest, after the first answer. Pieces may have been asked for since, by threads
    that were slow."""
    return any(one is None or one.endswith("-") for one in ranges(hub)[1:])


def end(download: Download) -> dict[str, Any]:
    """Its last event."""
    events, _ = download.end()
    return dict(events[-1])


def test_a_large_file_comes_in_pieces_side_by_side(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """Each once; two of them are sent only when both were asked for."""
    hub.fail(FILE, HEAD, Fault("together"), Fault("together"))
    events, words = download(REPO).end()
    assert installed(store)
    assert ranges(hub)[0] is None
    assert sorted(map(str, ranges(hub)[1:])) == sorted(PIECES)
    assert events[-2] == {
        "event": "progress",
        "file": FILE,
        "bytes_done": len(CONTENT),
        "bytes": len(CONTENT),
    }
    assert words == ""


def test_pieces_are_asked_for_where_the_hub_led_to(hub: Hub, repo: str, download: Start) -> None:
    """The hub is asked for a file once, and its token goes nowhere else."""
    assert end(download(REPO, HF_TOKEN="hf_secret"))["event"] == "installed"
    assert sum("/resolve/" in path for _, path, _ in hub.asked) == 1
    assert not any("authorization" in headers for headers in hub.downloads(FILE))


@pytest.mark.parametrize("kind", ["drop", "stall", "short"])
def test_a_piece_whose_connection_is_lost_goes_on_where_it_was(
    hub: Hub, store: Store, repo: str, download: Start, kind: str
) -> None:
    """However often, and whichever piece it is, perhaps one that goes on; nothing is asked for twice."""
    came = PIECE_BYTES // 3
    hub.fail(FILE, HEAD, Fault(kind, came), Fault(kind, came), HEAD, Fault(kind, came))
    assert end(download(REPO, stall_s=0.5 if kind == "stall" else 30.0))["event"] == "installed"
    assert installed(store)
    resumed = sorted(set(map(str, ranges(hub)[1:])) - set(PIECES))
    assert len(resumed) == 3
    begun_in = {int(one[6:].split("-")[0]) % PIECE_BYTES for one in resumed}
    assert begun_in <= {came, 2 * came, 3 * came}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=416),
        Fault("status", status=429, headers={"Retry-After": "0"}),
        Fault("status", status=403),
        Fault("no ranges"),
        Fault("other range"),
        Fault("longer"),
        Fault("page"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_a_server_that_does_not_send_pieces_properly_is_read_by_one_stream(
    hub: Hub, store: Store, repo: str, download: Start, fault: Fault
) -> None:
    """From where the pieces had come to, to the end."""
    hub.fail(FILE, HEAD, fault)
    assert end(download(REPO))["event"] == "installed"
    assert installed(store)
    assert is_one_stream(hub)


@pytest.mark.parametrize("etag", ['W/"mark"', "mark", ""])
def test_without_a_strong_mark_there_is_one_stream(
    hub: Hub, store: Store, repo: str, download: Start, etag: str
) -> None:
    """Pieces of two files must not come together."""
    hub.etags[FILE] = etag
    assert end(download(REPO))["event"] == "installed"
    assert ranges(hub) == [None]


def test_pieces_of_another_file_are_never_taken(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """The server tells by the mark that the file has changed, and sends all of it instead."""
    hub.fail(FILE, HEAD, *[Fault("pause", 1000)] * NUM_STREAMS)
    one = download(REPO)
    one.until("progress")
    hub.etags[FILE] = '"other"'
    hub.go_on.set()
    assert end(one)["event"] == "installed", "the bytes were the same after all"
    assert installed(store)
    assert is_one_stream(hub)


def test_a_wrong_piece_costs_another_download_by_one_stream(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """The hash of the whole says that something is wrong, and not what."""
    hub.fail(FILE, HEAD, HEAD, Fault("wrong"))
    assert end(download(REPO))["event"] == "installed"
    assert installed(store)
    assert ranges(hub)[-1] is None


@pytest.mark.parametrize("stop", [Download.cancel, Download.kill])
def test_what_came_in_its_turn_is_kept(
    hub: Hub, store: Store, repo: str, download: Start, stop: Callable[[Download], None]
) -> None:
    """Only a beginning of the file is ever on the disk, and the next download goes on with it."""
    hub.fail(FILE, *[HEAD] * 3, Fault("pause", 1000))
    one = download(REPO)
    next(event for event in one if event["event"] == "progress" and event["bytes_done"] >= PIECE_BYTES)
    stop(one)
    (part,) = (name for name in names(store.root) if not name.endswith(".lock"))
    have = (store.root / part).read_bytes()
    assert CONTENT.startswith(have)
    hub.go_on.set()
    num_before = len(ranges(hub))
    assert end(download(REPO))["event"] == "installed"
    assert installed(store)
    assert ranges(hub)[num_before] == (f"bytes={len(have)}-" if have else None)


def test_a_url_comes_in_pieces_too(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """Though its size is known only from the server."""
    (sha,) = hub.repos[REPO]
    url = f"{hub.cdn}/{REPO}/{sha}/cdn/{FILE}?signature=secret"
    events, _ = download(f"{url}#sha256={hashlib.sha256(CONTENT).hexdigest()}").end()
    assert events[-1]["event"] == "installed", events[-1]
    assert sorted(map(str, ranges(hub)[1:])) == sorted(PIECES)


def test_a_disk_that_is_full_ends_it(store: Store, repo: str, download: Start) -> None:
    """What had come in its turn is kept."""
    failed = end(download(REPO, limit_bytes=PIECE_BYTES + 1000))
    assert (failed["code"], failed["status"]) == ("no_space", 507)
    (part,) = names(store.root)
    assert (store.root / part).read_bytes() == CONTENT[: PIECE_BYTES + 1000]
