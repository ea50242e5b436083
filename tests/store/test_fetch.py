"""Downloads from a hub that misbehaves: each is resumed or clearly failed; no half file has a real name."""

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from downloads import Download, can_mount, names, occupy

from fake_hub import Fault, Hub
from pilotlight.store.manifest import File
from pilotlight.store.store import Store
from pilotlight.store.transfer import Part
from serving import until

Start = Callable[..., Download]

REPO, FILE = "someone/small-GGUF", "small-Q4_K_M.gguf"

CONTENT = random.Random(1).randbytes(1_000_000)

HALF = 400_000


@pytest.fixture
def repo(hub: Hub) -> str:
    """With one file, in LFS."""
    hub.commit_files(REPO, {FILE: CONTENT, "README.md": b"read me", "run.py": b"import os"})
    return REPO


def installed(store: Store) -> bytes:
    """The only file of the only version in the store."""
    (version,) = store.versions(f"{REPO}:Q4_K_M")
    path = store.path(f"{REPO}:Q4_K_M", version)
    assert names(store.root / "incoming") == []
    return path.read_bytes()


def failure(download: Download) -> dict[str, Any]:
    """How it failed; nothing has a real name then."""
    events, _ = download.end()
    assert events[-1]["event"] == "failed", events
    assert download.process.poll() == 1
    return dict(events[-1])


def test_what_is_pulled_is_what_the_hub_has(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """One file of a repository, at the commit that it had; nothing else of it, and never code."""
    events, words = download(REPO, is_fresh=True).end()
    assert installed(store) == CONTENT
    (version,) = store.versions(f"{REPO}:Q4_K_M")
    assert (version.revision, version.origin) == (list(hub.repos[REPO])[-1], f"{REPO}:Q4_K_M")
    assert [event["event"] for event in events if event["event"] != "progress"] == ["resolved", "installed"]
    assert events[-2] == {"event": "progress", "file": FILE, "bytes_done": 10**6, "bytes": 10**6}
    assert words == ""


def test_nothing_is_downloaded_for_a_folder_that_another_model_has(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """As on a file system that takes big letters for small ones."""
    occupy(store, f"{REPO}:Q4_K_M", f"{REPO}:q4_k_m")
    assert f"`pilotlight rm {REPO}:q4_k_m` first" in failure(download(REPO))["message"]
    assert hub.downloads(FILE) == []


def test_everything_is_private(store: Store, repo: str, download: Start) -> None:
    """Files 0600 in folders 0700."""
    download(REPO).end()
    for path in store.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("kind", ["drop", "stall", "short"])
def test_a_lost_connection_is_resumed(hub: Hub, store: Store, repo: str, download: Start, kind: str) -> None:
    """Where it was lost: dropped, silent, or ended as if that were all."""
    hub.fail(FILE, Fault(kind, HALF), Fault(kind, HALF))
    events, _ = download(REPO, stall_s=0.5 if kind == "stall" else 30.0).end()
    assert installed(store) == CONTENT
    assert sum(event["event"] == "waiting" for event in events) == 2
    ranges = [headers.get("range") for headers in hub.downloads(FILE)]
    assert ranges == [None, f"bytes={HALF}-", f"bytes={2 * HALF}-"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_for_a_moment_is_asked_again(
    hub: Hub, store: Store, repo: str, download: Start, status: int
) -> None:
    """Also in the middle of a file."""
    again = {"Retry-After": "0"}
    hub.fail(FILE, Fault("drop", HALF), Fault("status", status=status, headers=again))
    download(REPO).end()
    assert installed(store) == CONTENT
    assert hub.downloads(FILE)[-1]["range"] == f"bytes={HALF}-"


def test_a_server_says_how_long_to_wait(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """Its Retry-After counts, and not our own idea."""
    hub.fail(FILE, Fault("status", status=429, headers={"Retry-After": "0"}))
    events, _ = download(REPO, retry_s=200.0).end()
    assert {"event": "waiting", "reason": "the server answers 429", "seconds": 0.0} in events
    assert installed(store) == CONTENT


def test_too_long_a_wait_is_told_instead(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """An hour is for the person to decide."""
    hub.fail(FILE, Fault("drop", HALF), Fault("status", status=429, headers={"Retry-After": "3600"}))
    assert "answers 429 and asks to wait 3600 s; what has come is kept" in failure(download(REPO))["message"]
    assert store.part(f"sha256:{hashlib.sha256(CONTENT).hexdigest()}").stat().st_size == HALF


def test_a_server_that_always_fails_is_given_up(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """What has come is kept, and the next pull goes on with it."""
    hub.fail(FILE, Fault("drop", HALF), *[Fault("status", status=500)] * 6)
    assert "given up after 6 tries, what has come is kept" in failure(download(REPO))["message"]
    assert [Path(name).suffix for name in names(store.root)] == [".part"]
    download(REPO).end()
    assert installed(store) == CONTENT
    assert hub.downloads(FILE)[-1]["range"] == f"bytes={HALF}-"


def test_a_server_that_never_gets_further_is_given_up(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """It ignores ranges and always stops at the same place."""
    hub.fail(FILE, *[Fault("drop", HALF), Fault("no ranges", HALF)] * 6)
    assert "given up after 6 tries" in failure(download(REPO, stall_s=0.5))["message"]
    assert store.records() == []


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """200 instead of 206 is the whole file."""
    hub.fail(FILE, Fault("drop", HALF), Fault("no ranges"))
    download(REPO).end()
    assert installed(store) == CONTENT


@pytest.mark.parametrize("fault", [Fault("status", status=416), Fault("other range")])
def test_a_server_that_cannot_continue_is_read_from_the_start(
    hub: Hub, store: Store, repo: str, download: Start, fault: Fault
) -> None:
    """416, or another range than it was asked for."""
    hub.fail(FILE, Fault("drop", HALF), fault)
    download(REPO).end()
    assert installed(store) == CONTENT
    assert "range" not in hub.downloads(FILE)[-1]


def test_416_for_a_whole_file_is_a_failure(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """No range was asked for."""
    hub.fail(FILE, Fault("status", status=416))
    assert f"{FILE}: the server answers 416" in failure(download(REPO))["message"]


@pytest.mark.parametrize("kind", ["longer", "endless", "page"])
def test_a_wrong_length_is_refused(hub: Hub, store: Store, repo: str, download: Start, kind: str) -> None:
    """Announced or not, or another page altogether."""
    hub.fail(FILE, *[Fault(kind)] * 6)
    message = failure(download(REPO))["message"]
    assert "instead of 1000000" in message or "more than the 1000000 bytes" in message
    assert names(store.root) == []


def test_a_login_page_does_not_cost_what_has_come(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """A network that wants a login answers everything with 200."""
    hub.fail(FILE, Fault("drop", HALF), Fault("page"))
    download(REPO).end()
    assert installed(store) == CONTENT
    assert hub.downloads(FILE)[-1]["range"] == f"bytes={HALF}-"


def test_a_wrong_hash_is_refused(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """And nothing of it is kept."""
    hub.fail(FILE, Fault("wrong"))
    assert f"{FILE} came with a wrong hash" in failure(download(REPO))["message"]
    assert names(store.root) == []


@pytest.mark.parametrize("num_bytes", [HALF, len(CONTENT), len(CONTENT) + 1])
def test_a_damaged_beginning_is_downloaded_again(
    store: Store, repo: str, download: Start, num_bytes: int
) -> None:
    """What is not what it should be costs one more download, and no failure."""
    store.part(f"sha256:{hashlib.sha256(CONTENT).hexdigest()}").write_bytes(b"x" * num_bytes)
    download(REPO).end()
    assert installed(store) == CONTENT


def test_a_file_of_git_is_verified_too(hub: Hub, store: Store, download: Start) -> None:
    """What is too small for LFS has the hash of its git blob."""
    hub.commit_files(REPO, {FILE: b"short"})
    hub.fail(FILE, Fault("wrong"))
    assert "it is not git:" in failure(download(REPO))["message"]
    download(REPO).end()
    assert installed(store) == b"short"


def test_a_file_that_the_disk_refuses_is_kept_and_resumed(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """Here by a limit on the size of files; a full disk differs in the number of the error."""
    failed = failure(download(REPO, limit_bytes=HALF))
    assert (failed["code"], failed["status"]) == ("no_space", 507)
    assert [Path(name).suffix for name in names(store.root)] == [".part"]
    download(REPO).end()
    assert installed(store) == CONTENT
    assert hub.downloads(FILE)[-1]["range"] == f"bytes={HALF}-"


@pytest.mark.skipif(not can_mount(), reason="a disk of its own needs unprivileged mounts")
def test_a_disk_that_fills_up_is_told(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """A real one, of half a megabyte; its size was not known, so it was begun."""
    (sha,) = hub.repos[REPO]
    hub.fail(FILE, Fault("endless"))
    url = f"{hub.cdn}/{REPO}/{sha}/cdn/{FILE}#sha256={hashlib.sha256(CONTENT).hexdigest()}"
    failed = failure(download(url, disk_bytes=HALF))
    assert (failed["code"], failed["status"]) == ("no_space", 507)
    assert "No space left on device" in failed["message"]


def test_a_file_larger_than_the_disk_is_not_begun(hub: Hub, store: Store, download: Start) -> None:
    """It says what is needed and what there is."""
    hub.commit_files(REPO, {FILE: CONTENT})
    hub.sizes[FILE] = 2**60
    message = failure(download(REPO))["message"]
    assert "needs 1,099,511,627,776 MiB more" in message
    assert hub.downloads(FILE) == []


@pytest.mark.parametrize("stop", [Download.cancel, Download.kill])
def test_a_download_that_is_ended_goes_on_later(
    hub: Hub, store: Store, repo: str, download: Start, stop: Callable[[Download], None]
) -> None:
    """By Ctrl-C or by SIGKILL."""
    hub.fail(FILE, Fault("pause", HALF))
    one = download(REPO)
    one.until("progress")
    stop(one)
    (part,) = (name for name in names(store.root) if not name.endswith(".lock"))
    assert part.endswith(".part")
    have = (store.root / part).stat().st_size
    download(REPO).end()
    assert installed(store) == CONTENT
    assert hub.downloads(FILE)[-1]["range"] == f"bytes={have}-"


def test_two_processes_download_a_file_once(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """The second waits for the first."""
    hub.fail(FILE, Fault("pause", HALF))
    first = download(REPO)
    first.until("progress")
    second = download(REPO)
    assert second.until("waiting")["reason"] == f"another process is downloading {FILE}"
    hub.go_on.set()
    assert first.end()[0][-1]["event"] == second.end()[0][-1]["event"] == "installed"
    assert len(hub.downloads(FILE)) == 1


def test_pruning_takes_nothing_from_a_pull_that_goes_on(hub: Hub, store: Store, download: Start) -> None:
    """Neither what comes nor what had come before."""
    mlx = {"config.json": b"{}", "tokenizer.json": b"{ }", "model.safetensors": CONTENT}
    hub.commit_files(REPO, mlx)
    config = File("config.json", f"git:{hashlib.sha1(b'blob 2' + bytes(1) + b'{}').hexdigest()}", 2)
    store.arrived(config.digest).write_bytes(b"{}")
    hub.fail("model.safetensors", Fault("pause", HALF))
    one = download(REPO)
    part = store.part(f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    until(lambda: part.exists() and part.stat().st_size == HALF)
    assert store.prune() == []
    hub.go_on.set()
    assert one.end()[0][-1]["event"] == "installed"
    assert hub.downloads("config.json") == []


def test_a_part_needs_nothing_that_only_unix_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor goes to no other program anyway."""
    monkeypatch.delattr(os, "O_CLOEXEC", raising=False)
    part = Part(tmp_path / "half.part", File(FILE, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"))
    part.append(CONTENT)
    part.close()
    assert part.is_right()


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """Neither to the host that it redirects to, nor into events, logs and files."""
    hub.fail(FILE, Fault("status", status=403))
    events, words = download(REPO, HF_TOKEN="hf_secret").end()
    assert {headers.get("authorization") for _, path, headers in hub.asked if "/cdn/" not in path} == {
        "Bearer hf_secret"
    }
    assert "authorization" not in hub.downloads(FILE)[0]
    for text in (str(events), words):
        assert "secret" not in text  # of the token, and of the signed address
    assert not any(b"secret" in path.read_bytes() for path in store.root.rglob("*") if path.is_file())


def test_no_telemetry_is_sent(hub: Hub, repo: str, download: Start) -> None:
    """It asks for the repository and the file, and says what program it is."""
    download(REPO, CLAUDECODE="1").end()
    assert len(hub.asked) == 3
    (agent,) = {headers["user-agent"] for _, path, headers in hub.asked if "/api/" in path}
    assert agent.startswith("pilotlight/") and "agent/" not in agent


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nobody/nothing", "the hub has no nobody/nothing, or it is private"),
        (f"{REPO}@v9", "someone/small-GGUF has no revision 'v9'"),
        (f"{REPO}:Q8_0", "has no 'Q8_0'; there is: Q4_K_M"),
    ],
)
def test_what_is_not_there_is_told(repo: str, download: Start, reference: str, message: str) -> None:
    """With what there is."""
    assert message in failure(download(reference))["message"]


def test_a_gated_repository_says_what_to_do(hub: Hub, repo: str, download: Start) -> None:
    """A token alone is not enough."""
    hub.listing_faults.append(Fault("status", status=403, headers={"X-Error-Code": "GatedRepo"}))
    message = failure(download(REPO))["message"]
    assert "is gated: accept its conditions on the hub, then set HF_TOKEN or run `hf auth login`" in message


@pytest.mark.parametrize("status", [401, 403])
def test_a_repository_that_is_gated_only_for_its_files_says_so_too(
    hub: Hub, repo: str, download: Start, status: int
) -> None:
    """As the hub does it: what there is everybody may know."""
    hub.fail(FILE, Fault("status", status=status, headers={"X-Error-Code": "GatedRepo"}))
    message = failure(download(REPO))["message"]
    assert "is gated: accept its conditions on the hub, then set HF_TOKEN or run `hf auth login`" in message


def test_offline_is_honoured(hub: Hub, repo: str, download: Start) -> None:
    """As everything does that uses the hub's library."""
    assert "HF_HUB_OFFLINE is set" in failure(download(REPO, HF_HUB_OFFLINE="1"))["message"]
    assert hub.asked == []


def test_a_hub_that_is_not_there_is_given_up(hub: Hub, download: Start) -> None:
    """Port 1 is nobody's."""
    message = failure(download(REPO, HF_ENDPOINT="http://127.0.0.1:1"))["message"]
    assert "the hub does not answer (ConnectError); given up after 6 tries" in message


def test_a_hub_that_fails_for_a_moment_is_asked_again(
    hub: Hub, store: Store, repo: str, download: Start
) -> None:
    """For its list of files, too."""
    hub.listing_faults.extend([Fault("status", status=503), Fault("status", status=429)])
    download(REPO).end()
    assert installed(store) == CONTENT


def test_a_url_is_downloaded_and_verified(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """By the hash that the person gave; half of it is resumed."""
    (sha,) = hub.repos[REPO]
    hub.fail(FILE, Fault("drop", HALF))
    url = f"{hub.cdn}/{REPO}/{sha}/cdn/{FILE}?signature=secret"
    download(f"{url}#sha256={hashlib.sha256(CONTENT).hexdigest()}").end()
    (version,) = store.versions("small-Q4_K_M")
    assert store.path("small-Q4_K_M", version).read_bytes() == CONTENT
    assert version.bytes == len(CONTENT)
    assert hub.downloads(FILE)[-1]["range"] == f"bytes={HALF}-"


def test_a_url_with_another_file_is_refused(hub: Hub, store: Store, repo: str, download: Start) -> None:
    """Also one whose length nobody knows."""
    (sha,) = hub.repos[REPO]
    hub.fail(FILE, Fault("endless"))
    url = f"{hub.cdn}/{REPO}/{sha}/cdn/{FILE}?signature=secret"
    failed = failure(download(f"{url}#sha256={hashlib.sha256(CONTENT).hexdigest()}"))
    assert "wrong hash" in failed["message"] and "secret" not in failed["message"]
    assert names(store.root) == []


def test_two_files_of_the_same_bytes_are_downloaded_once(hub: Hub, store: Store, download: Start) -> None:
    """And are both there."""
    mlx = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": CONTENT}
    hub.commit_files(REPO, mlx)
    events, _ = download(REPO).end()
    assert events[-1]["event"] == "installed"
    (version,) = store.versions(REPO)
    folder = store.path(REPO, version)
    assert {name: (folder / name).read_bytes() for name in mlx} == mlx
    assert len(hub.downloads("config.json")) + len(hub.downloads("tokenizer.json")) == 1


@pytest.mark.parametrize("digest", ["../../../evil", "/evil", "sha256-evil", "A" * 64])
def test_a_hub_cannot_name_a_file_by_its_hash(
    hub: Hub, store: Store, tmp_path: Path, repo: str, download: Start, digest: str
) -> None:
    """The hash becomes the name of the half file."""
    hub.digests[FILE] = digest
    assert "is no SHA-256 and no git hash" in failure(download(REPO))["message"]
    assert not list(tmp_path.rglob("*evil*"))


def test_a_hub_cannot_name_a_file_outside(hub: Hub, store: Store, tmp_path: Path, download: Start) -> None:
    """Whatever it lists."""
    hub.commit_files(REPO, {"../../../evil-Q4_K_M.gguf": CONTENT})
    assert "is refused: a part of it begins" in failure(download(REPO))["message"]
    assert not list(tmp_path.rglob("evil*"))
