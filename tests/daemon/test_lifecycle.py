"""A daemon's start: the ready line, the discovery file, the port, models to load at once."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pilotlight import __version__
from serving import END_S, NO_TLS, PROGRAM, Daemon, clean_environ, echo, until

Serve = Callable[..., Daemon]


@contextmanager
def refused(folder: Path, *arguments: str, **settings: Any) -> Iterator[Daemon]:
    """A daemon that is not expected to start; settings as for `Daemon`."""
    daemon = Daemon(folder, *arguments, **settings)
    try:
        yield daemon
    finally:
        daemon.close()


def test_the_ready_line_is_all_it_prints(serve: Serve) -> None:
    """One line on stdout, with the URL, when it can be reached."""
    daemon = serve()
    assert re.fullmatch(rf"pilotlight {__version__} ready at http://127\.0\.0\.1:\d+\n", daemon.ready_line)
    assert daemon.get("/ready").status_code == 200
    assert daemon.stop() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is always full")
def test_who_cannot_be_told_where_it_is_costs_no_start(tmp_path: Path) -> None:
    """A disk that is full; the discovery file tells it all the same, and the end is an ordinary one."""
    command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", "--state-dir", str(tmp_path)]
    # An empty PYTHONUNBUFFERED is none: users' lines go through a buffer.
    environ = clean_environ() | {"PILOTLIGHT_CONFIG": os.devnull, "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full, (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(command, env=environ, stdout=full, stderr=log)
    try:
        until((tmp_path / "daemon.json").exists)
        url = json.loads((tmp_path / "daemon.json").read_text())["url"]
        assert httpx.get(f"{url}/ready", verify=NO_TLS).status_code == 200
        daemon.terminate()
        assert daemon.wait(END_S) == 0
    finally:
        daemon.kill()
        daemon.wait()


def test_the_discovery_file_tells_where_it_is(serve: Serve) -> None:
    """URL, process and version, for the owner only; gone after the end."""
    daemon = serve()
    file = daemon.state_dir / "daemon.json"
    told = json.loads(file.read_text())
    assert (told["url"], told["pid"], told["version"]) == (daemon.url, daemon.pid, __version__)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    daemon.stop()
    assert not file.exists()


def test_where_it_is_may_be_told_to_nobody(serve: Serve, tmp_path: Path) -> None:
    """With a disk that is full or read-only it serves all the same, and says so."""
    (tmp_path / "state" / "daemon.json").mkdir(parents=True)
    daemon = serve()
    assert "cannot be found by its state directory" in daemon.notices()["not_announced"]["text"]
    daemon.stop()


def test_a_start_without_models_loads_nothing(serve: Serve) -> None:
    """Until somebody asks, the daemon is alone."""
    daemon = serve()
    assert {model["state"] for model in daemon.get("/v1/models").json()["data"]} == {"stopped"}
    assert [process.pid for process in daemon.processes()] == [daemon.pid]


def test_plugins_that_the_environment_names_are_not_loaded(serve: Serve, tmp_path: Path) -> None:
    """OpenTelemetry's, for other programs: here they are not even installed. Workers have it as it was."""
    named = {"OTEL_PROPAGATORS": "b3", "OTEL_PYTHON_CONTEXT": "theirs"}
    daemon = serve(models=echo(tmp_path), program=PROGRAM, environ=named)
    assert daemon.post("echo", max_tokens=1).status_code == 200
    assert named.items() <= daemon.worker("echo").environ().items()
    assert "Failed to load" not in daemon.log


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells the limits of others")
def test_a_crash_leaves_no_prompts_on_the_disk(serve: Serve, tmp_path: Path) -> None:
    """Neither the daemon's nor a worker's: no core, and if there is one, none of their memory in it."""
    daemon = serve(models=echo(tmp_path))
    daemon.post("echo", max_tokens=1)
    for process in (psutil.Process(daemon.pid), daemon.worker("echo")):
        limits = process.rlimit(psutil.RLIMIT_CORE)
        assert limits in ((1, 1), (0, 0))
        assert int(Path(f"/proc/{process.pid}/coredump_filter").read_text(), 16) == 0


def test_a_model_given_at_start_is_loaded_at_once(serve: Serve, tiny_gguf: Path) -> None:
    """A bare path, served under its file name."""
    daemon = serve("--model", str(tiny_gguf))
    until(lambda: daemon.model("tiny")["state"] == "ready")
    assert daemon.post("tiny", max_tokens=2).json()["usage"]["completion_tokens"] == 2


def test_a_chosen_model_of_the_configuration_is_loaded_at_once(serve: Serve, tmp_path: Path) -> None:
    """By its name; the others wait."""
    daemon = serve("--model", "one", models=echo(tmp_path, "one") + echo(tmp_path, "two"))
    until(lambda: daemon.model("one")["state"] == "ready")
    assert daemon.model("two")["state"] == "stopped"


@pytest.mark.parametrize("is_other", [False, True], ids=["same state directory", "another one"])
def test_a_port_in_use_is_an_error_of_one_line(serve: Serve, tmp_path: Path, is_other: bool) -> None:
    """Exit code 3, before anything is loaded, naming the port and who holds it."""
    first = serve()
    port = first.url.rpartition(":")[2]
    folder = tmp_path / "other" if is_other else tmp_path
    before = first.log
    with refused(folder, "--port", port) as second:
        assert second.ended() == 3
    (line,) = second.log.removeprefix(before).splitlines()
    assert f"127.0.0.1:{port} is in use" in line
    assert f"pid {first.pid}" in line
    assert first.get("/ready").status_code == 200


def test_a_port_in_use_costs_nobody_the_key(serve: Serve, tmp_path: Path) -> None:
    """A start makes one anew that others can read, but not that of the daemon which has the port."""
    first = serve()
    file = first.state_dir / "admin.key"
    file.chmod(0o644)
    with refused(tmp_path, "--port", str(first.address[1])) as second:
        assert second.ended() == 3
    assert first.admin("reload").status_code == 200


def test_an_address_of_another_machine_is_an_error_of_one_line(tmp_path: Path) -> None:
    """Exit code 1: it may be ours in a moment, and whoever started us tries again."""
    environ = {"PILOTLIGHT_API_KEYS": "a-key-for-the-apps"}
    with refused(tmp_path, "--host", "192.0.2.1", "--port", "8710", environ=environ) as daemon:
        assert daemon.ended() == 1
    (line,) = daemon.log.splitlines()
    assert line.startswith("pilotlight: 192.0.2.1:8710 cannot be bound: ")
    assert line.endswith("choose an address of this machine with --host")


def test_a_wrong_setting_stops_the_start(tmp_path: Path) -> None:
    """Exit code 2 and one line."""
    with refused(tmp_path, "--threads", "-1") as daemon:
        assert daemon.ended() == 2
    assert "--threads" in daemon.log
    assert "Traceback" not in daemon.log
