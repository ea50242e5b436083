"""A daemon whose machine is hot paces background work, and never an interactive answer."""

import re
from collections.abc import Callable
from pathlib import Path

from serving import Daemon, echo, until

FILES = {"type": "cpu-thermal", "trip_point_0_temp": "80000", "trip_point_0_type": "passive"}


def heat(root: Path, celsius: int) -> None:
    """Of the only sensor; it throttles at 80."""
    folder = root / "sys/class/thermal/thermal_zone0"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (FILES | {"temp": f"{celsius}000"}).items():
        (folder / name).write_text(text + "\n")


def metric(daemon: Daemon, name: str) -> float:
    """The first of this name, labels included."""
    found = re.search(rf"^{re.escape(name)} (.+)$", daemon.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_background_work_is_held_in_bursts_while_it_is_hot(
    serve: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Its stream pauses and goes on; when the machine has cooled, it runs all the time again."""
    root = tmp_path / "machine"
    heat(root, 78)
    daemon = serve("--power-root", str(root), models=echo(tmp_path, tokens_per_s=40))
    with daemon.stream("echo", max_tokens=100_000, service_tier="flex") as stream:
        assert next(stream)
        assert until(lambda: metric(daemon, "pilotlight_background_duty_ratio") < 0.5)
        assert until(lambda: metric(daemon, 'pilotlight_paused_sequences{model="echo"}') == 1)
        assert daemon.post("echo", max_tokens=20).status_code == 200
        heat(root, 40)
        assert until(lambda: metric(daemon, "pilotlight_background_duty_ratio") == 1.0)
        assert next(stream)
