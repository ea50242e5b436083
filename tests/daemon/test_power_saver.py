"""Background work that may run on battery has low clocks, and nothing else does."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import FAST, Daemon, echo, until

pytest.importorskip("jeepney")

pytestmark = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="there is no dbus-daemon")

RULE = """
[[rule]]
name = "on battery"
when = { supply = "battery" }
background = { clock = "eco" }
"""

BATTERY = {"type": "Battery", "status": "Discharging", "capacity": "80"}


def test_the_power_saver_is_held_while_only_background_work_runs(
    serve: Callable[..., Daemon], tmp_path: Path
) -> None:
    """On battery, by the daemon; somebody's request ends it at once, and afterwards it comes back."""
    from desktop_bus import bus, service

    folder = tmp_path / "machine/sys/class/power_supply/BAT0"
    folder.mkdir(parents=True)
    for name, text in BATTERY.items():
        (folder / name).write_text(text + "\n")
    models = RULE + echo(tmp_path, tokens_per_s=20)
    with bus(tmp_path) as address, service(address, "org.freedesktop.UPower.PowerProfiles", {}) as profiles:
        environ = {"DBUS_SYSTEM_BUS_ADDRESS": address}
        power_root = str(tmp_path / "machine")
        daemon = serve("--power-root", power_root, models=models, environ=environ, program=FAST)
        assert daemon.post("echo").status_code == 200
        assert profiles.holds == []
        with daemon.stream("echo", max_tokens=100_000, service_tier="flex") as stream:
            assert next(stream)
            assert until(lambda: profiles.num_held == 1)
            assert until(lambda: daemon.get("/admin/policy").json()["saver_held"] is True)
            with daemon.stream("echo", max_tokens=100_000) as answer:
                assert next(answer)
                assert until(lambda: profiles.num_held == 0)
            assert until(lambda: profiles.num_held == 1)
