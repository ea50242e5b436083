"""A daemon whose machine is hot paces background work, and never an interactive answer."""

from collections.abc import Callable
from pathlib import Path

from machine_files import metric, show_heat, show_throttling
from serving import FAST, Daemon, echo, until

Serve = Callable[..., Daemon]

DUTY = "pilotlight_background_duty_ratio"
PAUSED = 'pilotlight_paused_sequences{model="echo"}'


def test_background_work_is_held_in_bursts_while_it_is_hot(serve: Serve, tmp_path: Path) -> None:
    """Its stream pauses and goes on; when the machine has cooled, it runs all the time again."""
    root = tmp_path / "machine"
    show_heat(root, 78)
    daemon = serve("--power-root", str(root), models=echo(tmp_path, tokens_per_s=40))
    with daemon.stream("echo", max_tokens=100_000, service_tier="flex") as stream:
        assert next(stream)
        assert until(lambda: metric(daemon, DUTY) < 0.5)
        assert until(lambda: metric(daemon, PAUSED) == 1)
        assert daemon.post("echo", max_tokens=20).status_code == 200
        show_heat(root, 40)
        assert until(lambda: metric(daemon, DUTY) == 1.0)
        assert next(stream)


def test_background_work_rests_while_the_system_throttles(serve: Serve, tmp_path: Path) -> None:
    """And only that."""
    root = tmp_path / "machine"
    show_heat(root, 70)
    show_throttling(root, 0)
    daemon = serve("--power-root", str(root), models=echo(tmp_path, tokens_per_s=40), program=FAST)
    with daemon.stream("echo", max_tokens=100_000, service_tier="flex") as stream:
        assert next(stream)
        show_throttling(root, 3)
        assert until(lambda: metric(daemon, PAUSED) == 1)
        assert metric(daemon, DUTY) == 0.0
        assert daemon.post("echo", max_tokens=20).status_code == 200
        show_throttling(root, 0)
        show_heat(root, 40)
        assert until(lambda: metric(daemon, DUTY) > 0)
        assert until(lambda: metric(daemon, PAUSED) == 0)
