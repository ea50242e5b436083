"""A daemon whose machine gets hot: nobody is interrupted before it is critical, and then all are told why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from machine_files import metric, show_heat
from serving import FAST, Daemon, echo, until

Serve = Callable[..., Daemon]

HOT, CRITICAL, BACK = 89, 91, 80
"""Degrees, of a sensor that throttles at 80 and whose machine switches itself off at 100: half-way there it
is critical, until it is no more than throttling."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "machine"
    show_heat(root, 60)
    return root


@pytest.fixture
def daemon(serve: Serve, tmp_path: Path, root: Path) -> Daemon:
    models = "[policy.hysteresis]\nleave_after = 0\n" + echo(tmp_path, tokens_per_s=40)
    return serve("--power-root", str(root), models=models, program=FAST)


def test_an_answer_ends_only_when_it_is_critical(daemon: Daemon, root: Path) -> None:
    """Then it ends with an error that says why."""
    with daemon.stream("echo", max_tokens=100_000) as stream:
        assert next(stream)
        show_heat(root, HOT)
        assert until(lambda: metric(daemon, "pilotlight_temperature_celsius") == HOT)
        assert daemon.model("echo")["classes"]["interactive"]["active"] == 1
        show_heat(root, CRITICAL)
        *said, last = stream
    assert all("error" not in event for event in said)
    assert (last["error"]["type"], last["error"]["code"]) == ("policy", "thermal_critical")
    assert "too hot" in last["error"]["message"]


def test_a_request_is_refused_until_it_has_cooled(daemon: Daemon, root: Path) -> None:
    """In a sentence; and what is hot again is not yet cool."""
    show_heat(root, CRITICAL)
    refused = until(lambda: (answer := daemon.post("echo", max_tokens=1)).status_code == 503 and answer)
    assert refused.json()["error"]["code"] == "thermal_critical"
    assert "too hot" in refused.json()["error"]["message"]
    show_heat(root, HOT)
    assert until(lambda: daemon.get("/admin/policy").json()["reading"]["celsius"]["value"] == HOT)
    assert daemon.post("echo", max_tokens=1).status_code == 503
    show_heat(root, BACK)
    assert until(lambda: daemon.post("echo", max_tokens=1).status_code == 200)
