"""Pulling into a running daemon: tested, served at once, one download for all who ask, and a way back."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fake_hub import Fault, Hub
from fake_hub import hub as fake_hub
from serving import END_S, Daemon, echo, on_path, serving, table, text_of, until

REPO, FILE, NAME = "owner/tiny-GGUF", "tiny-F32.gguf", "owner/tiny-GGUF:F32"

Event = dict[str, Any]

SLOW_WORKER = "import sys, time\nif 'pilotlight.worker.child' in sys.orig_argv: time.sleep(60)"


@pytest.fixture
def hub(tiny_gguf: Path) -> Iterator[Hub]:
    """With a real model, of which there are two versions: the second has some bytes more."""
    with fake_hub() as found:
        found.commit_files(REPO, {FILE: tiny_gguf.read_bytes()})
        yield found


@pytest.fixture
def settings(hub: Hub, tmp_path: Path) -> dict[str, Any]:
    """Of a daemon that pulls from the hub of the test."""
    folder = json.dumps(str(tmp_path / "store"))
    server = f"[server]\nstore_dir = {folder}\ndownload_retry_s = 0.0\nbuiltin = false\n"
    source = f'[[model]]\nname = "mine"\nsource = "{REPO}:F32"\n'
    return {"models": server + source, "environ": {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}}


@pytest.fixture
def daemon(tmp_path: Path, settings: dict[str, Any]) -> Iterator[Daemon]:
    with serving(tmp_path, **settings) as found:
        yield found


@contextmanager
def pulling(daemon: Daemon, model: str = REPO) -> Iterator[Iterator[Event]]:
    """The events of a pull; leaving the block leaves the pull."""
    url = f"{daemon.url}/admin/models/pull"
    with httpx.stream("POST", url, json={"model": model}, headers=daemon.key, timeout=END_S) as response:
        assert response.status_code == 200, response.read()
        lines = (line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: "))
        yield (json.loads(line) for line in lines if line != "[DONE]")


def pull(daemon: Daemon, model: str = REPO) -> Event:
    """How a pull ended."""
    with pulling(daemon, model) as events:
        return list(events)[-1]


def admin(daemon: Daemon, what: str, **body: Any) -> httpx.Response:
    return daemon.admin(f"models/{what}", **body)


def served(daemon: Daemon) -> dict[str, list[str]]:
    """The aliases of every model, by name."""
    return {model["id"]: model["aliases"] for model in daemon.get("/v1/models").json()["data"]}


def loaded(daemon: Daemon) -> list[str]:
    """The versions that were loaded for clients, oldest first."""
    lines = [line for line in daemon.log.splitlines() if f'event="loading model" model={NAME} ' in line]
    return [line.partition("path=")[2].split("/")[-2] for line in lines]


def test_a_pulled_model_is_served_at_once_and_ever_after(
    daemon: Daemon, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Under its name and a short one; by the next daemon, too."""
    end = pull(daemon)
    assert (end["event"], end["model"], end["is_new"], end["warning"]) == ("done", NAME, True, None)
    assert served(daemon) == {NAME: ["tiny:F32"]}
    for name in (NAME, "tiny:F32"):
        assert daemon.post(name, max_tokens=2).status_code == 200
    daemon.stop()
    with serving(tmp_path / "next", "--model", "tiny:F32", **settings) as other:
        assert other.post(NAME, max_tokens=2).status_code == 200


def test_what_is_the_newest_is_not_downloaded_again(daemon: Daemon, hub: Hub) -> None:
    """It is only asked for."""
    first, second = pull(daemon), pull(daemon)
    assert (second["version"], second["is_new"]) == (first["version"], False)
    assert len(hub.downloads(FILE)) == 1
    assert 'pilotlight_pulls_total{outcome="done"} 2.0' in daemon.get("/metrics").text


def test_all_who_ask_follow_one_download(daemon: Daemon, hub: Hub) -> None:
    """Who comes later hears what it is, and who leaves does not end it for the others."""
    hub.fail(FILE, Fault("pause", 1000))
    with ExitStack() as stack:
        first = stack.enter_context(pulling(daemon))
        assert next(first)["event"] == "resolved"
        with pulling(daemon) as second:
            assert next(second)["event"] == "resolved"
        third = stack.enter_context(pulling(daemon))
        assert next(third)["event"] == "resolved"
        hub.go_on.set()
        assert list(first)[-1] == list(third)[-1]
    assert len(hub.downloads(FILE)) == 1


def test_a_pull_that_nobody_follows_ends_and_goes_on_later(daemon: Daemon, hub: Hub) -> None:
    """Its process is gone, what has come is kept."""
    hub.fail(FILE, Fault("pause", 1000))
    with pulling(daemon) as events:
        while next(events)["event"] != "progress":
            continue
        (process,) = psutil.Process(daemon.pid).children()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert served(daemon) == {}
    until(lambda: 'pilotlight_pulls_total{outcome="stopped"} 1.0' in daemon.get("/metrics").text)
    assert pull(daemon)["event"] == "done"
    assert hub.downloads(FILE)[-1]["range"].startswith("bytes=")


def test_a_stopping_daemon_ends_its_pulls(daemon: Daemon, hub: Hub) -> None:
    """And says so; the next one goes on."""
    hub.fail(FILE, Fault("pause", 1000))
    with pulling(daemon) as events:
        assert next(events)["event"] == "resolved"
        daemon.signal(signal.SIGTERM)
        *_, end = events
    assert (end["event"], end["code"]) == ("failed", "pull_failed")
    assert "the pull was stopped; what has come is kept" in end["message"]
    assert daemon.ended() == 0


def test_a_new_version_is_served_and_the_old_one_is_a_rollback_away(
    daemon: Daemon, hub: Hub, tiny_gguf: Path
) -> None:
    """Streams end with the version that they began with."""
    one = pull(daemon)["version"]
    hub.commit_files(REPO, {FILE: tiny_gguf.read_bytes() + b"\0" * 32})
    with daemon.stream(NAME, max_tokens=200, ignore_eos=True) as stream:
        next(stream)
        end = pull(daemon, "tiny:F32")
        two = end["version"]
        assert (end["previous"], one != two) == (one, True)
        assert text_of(stream)
    assert daemon.post(NAME, max_tokens=2).status_code == 200
    back = admin(daemon, "rollback", model="tiny:F32")
    assert back.json() == {"model": NAME, "version": one, "previous": two}
    assert daemon.post(NAME, max_tokens=2).status_code == 200
    assert loaded(daemon) == [one, two, one]
    shown = daemon.get(f"/admin/models/{NAME}").json()["versions"]
    assert [(version["version"], version["state"]) for version in shown] == [
        (one, "active"),
        (two, "previous"),
    ]


def test_a_new_version_that_does_not_load_is_not_served(daemon: Daemon, hub: Hub) -> None:
    """It says why; asking again tests it again, without another download."""
    one = pull(daemon)["version"]
    hub.commit_files(REPO, {FILE: b"GGUF" + bytes(5000)})
    for _ in range(2):
        end = pull(daemon)
        assert (end["event"], end["code"]) == ("failed", "smoke_test_failed")
        assert "the new version does not load" in end["message"]
        assert f"version {one} stays active" in end["message"]
    assert len(hub.downloads(FILE)) == 2
    assert daemon.post(NAME, max_tokens=2).status_code == 200
    assert admin(daemon, "rollback", model=NAME).json()["error"]["code"] == "no_previous_version"


def test_the_test_of_a_version_waits_for_room(tmp_path: Path, settings: dict[str, Any], hub: Hub) -> None:
    """It takes its turn within the budget: what nobody uses goes for it, and all together never hold more."""
    other = echo(tmp_path, "other", tokens_per_s=50)
    settings["models"] += other
    with serving(tmp_path, "--memory-budget", "72MiB", **settings) as daemon:
        with daemon.stream("other", max_tokens=100) as stream, pulling(daemon) as events:
            until(lambda: next(events)["event"] == "testing")
            assert len(text_of(stream).split()) == 100
            assert list(events)[-1]["event"] == "done"
        assert daemon.model("other")["state"] == "stopped"
        assert 'pilotlight_evictions_total{model="other",reason="room"} 1.0' in daemon.get("/metrics").text


def test_a_version_that_never_fits_is_not_active(tmp_path: Path, settings: dict[str, Any], hub: Hub) -> None:
    """With the numbers; a pull with more memory tests it again, without another download."""
    with serving(tmp_path / "small", "--memory-budget", "48MiB", **settings) as daemon:
        end = pull(daemon)
        assert (end["event"], end["code"], end["status"]) == ("failed", "model_does_not_fit", 400)
        assert "memory.budget is 48 MiB; raise it to" in end["message"]
        assert "a pull tests it again; it is not activated" in end["message"]
        assert served(daemon) == {}
        assert daemon.notices() == {}
    with serving(tmp_path / "large", **settings) as daemon:
        assert pull(daemon)["event"] == "done"
    assert len(hub.downloads(FILE)) == 1


def test_a_failed_test_leaves_no_notice_and_no_worker(daemon: Daemon, hub: Hub) -> None:
    """Its model is nobody's business any more."""
    hub.commit_files(REPO, {FILE: b"GGUF" + bytes(5000)})
    assert pull(daemon)["code"] == "smoke_test_failed"
    assert daemon.notices() == {}
    assert daemon.processes() == [psutil.Process(daemon.pid)]
    assert daemon.get("/v1/models").json()["memory"]["charged"] == 0


def test_a_pull_that_is_left_during_its_test_leaves_no_worker(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Wherever it was."""
    settings["environ"] |= on_path(tmp_path / "path", sitecustomize=SLOW_WORKER)
    with serving(tmp_path, **settings) as daemon:
        with pulling(daemon) as events:
            until(lambda: next(events)["event"] == "testing")
            until(lambda: len(daemon.processes()) > 1)
        until(lambda: daemon.processes() == [psutil.Process(daemon.pid)])
        until(lambda: 'pilotlight_pulls_total{outcome="stopped"} 1.0' in daemon.get("/metrics").text)


def test_a_first_version_that_does_not_load_is_no_model(daemon: Daemon, hub: Hub) -> None:
    """There is nothing to fall back to, and nothing is served."""
    hub.commit_files(REPO, {FILE: b"GGUF" + bytes(5000)})
    assert "it is not activated" in pull(daemon)["message"]
    assert served(daemon) == {}
    assert admin(daemon, "prune").json()["bytes_freed"] >= 5000


def test_a_model_whose_library_is_missing_is_served_untested(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """With a warning; its requests say what to install, as always."""
    settings["environ"] |= on_path(
        tmp_path / "path", sitecustomize="import sys; sys.modules['llama_cpp'] = None"
    )
    with serving(tmp_path, **settings) as daemon:
        end = pull(daemon)
        assert end["event"] == "done"
        assert f"not tested: {NAME} (version {end['version']}): llama_cpp is not" in end["warning"]
        assert daemon.post(NAME).json()["error"]["code"] == "runtime_missing"


def test_a_model_of_the_configuration_says_how_to_get_it(daemon: Daemon) -> None:
    """Until it was pulled, under the name that it has there."""
    error = daemon.post("mine").json()["error"]
    assert (error["code"], error["param"]) == ("model_not_pulled", "model")
    assert "`pilotlight pull mine` gets it" in error["message"]
    assert pull(daemon, "mine")["model"] == "mine"
    assert daemon.post("mine", max_tokens=2).status_code == 200
    assert served(daemon) == {"mine": []}


def test_a_removed_model_is_gone_at_once(daemon: Daemon, tmp_path: Path) -> None:
    """From memory, from the list, and from the disk."""
    pull(daemon)
    daemon.post(NAME, max_tokens=2)
    worker = daemon.worker(NAME)
    assert admin(daemon, "rm", model=NAME).json()["model"] == NAME
    assert daemon.post(NAME).json()["error"]["code"] == "model_not_found"
    until(lambda: not worker.is_running())
    assert list((tmp_path / "store" / "models").iterdir()) == []


def test_pruning_is_told_before_it_is_done(daemon: Daemon, hub: Hub, tiny_gguf: Path) -> None:
    """`dry_run` deletes nothing."""
    pull(daemon)
    hub.commit_files(REPO, {FILE: tiny_gguf.read_bytes() + b"\0" * 32})
    pull(daemon)
    plan = admin(daemon, "prune", dry_run=True).json()
    assert (plan["dry_run"], len(plan["removed"])) == (True, 1)
    done = admin(daemon, "prune").json()
    assert done == plan | {"dry_run": False}
    assert admin(daemon, "prune").json()["bytes_freed"] == 0
    assert daemon.post(NAME, max_tokens=2).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x"}, "model"),
        ({"model": "a/b", "mode": 1}, "mode"),
    ],
)
def test_a_wrong_request_is_refused(daemon: Daemon, body: dict[str, Any], param: str) -> None:
    """With the field."""
    answer = admin(daemon, "pull", **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_file_of_the_user_is_not_pulled(tmp_path: Path, tiny_gguf: Path) -> None:
    """It is where it is."""
    with serving(tmp_path, models=table("tiny", tiny_gguf)) as daemon:
        assert "is a file of yours" in admin(daemon, "pull", model="tiny").json()["error"]["message"]


def test_the_token_is_in_no_log(tmp_path: Path, hub: Hub, settings: dict[str, Any]) -> None:
    """Whatever happens; the hub gets it."""
    settings["environ"]["HF_TOKEN"] = "hf_secret"
    hub.fail(FILE, Fault("status", status=403))
    with serving(tmp_path, "--log-level", "debug", **settings) as daemon:
        assert pull(daemon)["event"] == "failed"
        assert pull(daemon)["event"] == "done"
        assert "secret" not in daemon.log
    assert any(headers.get("authorization") == "Bearer hf_secret" for _, _, headers in hub.asked)
