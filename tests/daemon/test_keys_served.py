"""Keys against a real daemon: the file, the command line, curl, and an address that others can reach."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest

from serving import Daemon, clean_environ, echo, serving

Serve = Callable[..., Daemon]

API_KEY = "a-key-for-the-apps"


def cli(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the same user."""
    command = [sys.executable, "-m", "pilotlight", *arguments, "--state-dir", str(daemon.state_dir)]
    return subprocess.run(command, env=clean_environ(), capture_output=True, text=True)


def test_admin_is_closed_and_the_command_line_has_the_key(serve: Serve, tmp_path: Path) -> None:
    """Answers need none."""
    daemon = serve(models=echo(tmp_path))
    refused = httpx.post(f"{daemon.url}/admin/models/load", json={"model": "echo"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert str(daemon.state_dir / "admin.key") in refused.json()["error"]["message"]
    assert cli(daemon, "load", "echo").stdout.startswith("echo is loaded")
    assert cli(daemon, "show", "echo").returncode == 0
    assert daemon.post("echo").status_code == 200


def test_curl_reads_the_key_from_its_file(serve: Serve, tmp_path: Path) -> None:
    """As the README has it."""
    daemon = serve(models=echo(tmp_path))
    line = f'curl -s -H "Authorization: Bearer $(cat {daemon.state_dir}/admin.key)" {daemon.url}/admin/models'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert "echo" in [model["id"] for model in json.loads(done.stdout)["models"]]


def test_the_key_survives_a_restart_and_is_in_no_log(tmp_path: Path) -> None:
    """Until somebody deletes the file."""
    found = []
    for is_deleted in (False, True, False):
        with serving(tmp_path, "--log-level", "debug") as daemon:
            found.append((daemon.state_dir / "admin.key").read_text().strip())
            assert daemon.admin("reload").status_code == 200
            if is_deleted:
                (daemon.state_dir / "admin.key").unlink()
        assert not any(key in daemon.log for key in found)
    assert found[0] == found[1] != found[2]


def test_a_daemon_with_keys_serves_those_who_have_one(serve: Serve, tmp_path: Path) -> None:
    """OpenAI's client says what is wrong in its own words."""
    daemon = serve(models=echo(tmp_path), environ={"PILOTLIGHT_API_KEYS": API_KEY})
    stranger, friend = (
        openai.OpenAI(base_url=f"{daemon.url}/v1", api_key=key, max_retries=0) for key in ("none", API_KEY)
    )
    with stranger, friend:
        with pytest.raises(openai.AuthenticationError, match=r"one of its server\.api_keys"):
            stranger.completions.create(model="echo", prompt="hi")
        assert friend.completions.create(model="echo", prompt="hi").choices[0].text
    assert cli(daemon, "run", "echo", "hello").stdout.strip() == "hello"
    assert API_KEY not in daemon.log


def test_a_daemon_with_keys_may_be_reached_by_others(serve: Serve, tmp_path: Path) -> None:
    """By its addresses, on this machine too; the local ones are told as the loopback's."""
    daemon = serve("--host", "0.0.0.0", models=echo(tmp_path), environ={"PILOTLIGHT_API_KEYS": API_KEY})
    assert daemon.url.startswith("http://127.0.0.1:")
    host = _own_address()
    url, key = f"http://{host}:{daemon.address[1]}/v1/models", {"authorization": f"Bearer {API_KEY}"}
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers=key).status_code == 200
    assert httpx.get(url, headers=key | {"host": "evil.example"}).status_code == 403
    assert cli(daemon, "ps").returncode == 0


def _own_address() -> str:
    """The one by which this machine would reach others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:  # it reaches nobody
            return "127.0.0.2"
        return str(probe.getsockname()[0])
