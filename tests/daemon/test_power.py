"""A daemon on a machine that is a folder: what it reads there, and when that changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import FAST, Daemon, echo, until


def write(root: Path, **files: str) -> None:
    """Of the adapter and the battery: `BAT0_status="Full"`."""
    for name, text in files.items():
        device, _, file = name.partition("_")
        folder = root / "sys/class/power_supply" / device
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text + "\n")


def reading(daemon: Daemon) -> Any:
    return daemon.get("/admin/policy").json()["reading"]


def test_the_machine_is_read_below_the_given_root(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """Changes are seen while it runs; the metrics have the last reading, and look at nothing themselves."""
    root = tmp_path / "machine"
    write(root, AC_type="Mains", AC_online="1", BAT0_type="Battery", BAT0_status="Full", BAT0_capacity="88")
    daemon = serve("--power-root", str(root), models=echo(tmp_path), program=FAST)
    assert "pilotlight_battery_percent 88" not in daemon.get("/metrics").text
    assert (reading(daemon)["supply"]["value"], reading(daemon)["percent"]["value"]) == ("ac", 88)
    write(root, AC_online="0", BAT0_status="Discharging", BAT0_capacity="14")
    assert until(lambda: reading(daemon)["supply"]["value"] == "battery")
    metrics = daemon.get("/metrics").text
    assert "pilotlight_battery_percent 14.0" in metrics
    assert 'pilotlight_power_supply{supply="battery"} 1.0' in metrics


def test_it_is_read_anew_while_answers_are_generated(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """Nobody asks but for an answer, and the change is in the metrics all the same."""
    root = tmp_path / "machine"
    write(root, AC_type="Mains", AC_online="1")
    environ = {"PILOTLIGHT_POWER_ROOT": str(root)}
    daemon = serve(models=echo(tmp_path, tokens_per_s=20), environ=environ)
    with daemon.stream("echo", max_tokens=1000) as stream:
        assert next(stream)
        assert until(lambda: 'supply="ac"} 1.0' in daemon.get("/metrics").text)
        write(root, AC_online="0", BAT0_type="Battery", BAT0_status="Discharging")
        assert until(lambda: 'supply="battery"} 1.0' in daemon.get("/metrics").text)


def test_its_own_speed_is_part_of_it(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """Known once enough was generated to compare; on a machine without any sensor, too.

    The answer does not end before that, for tokens that come late on a busy machine are not compared; and the
    prompt is so long that all of the answer is compared with its like.
    """
    root = tmp_path / "machine"
    root.mkdir()
    daemon = serve("--power-root", str(root), models=echo(tmp_path, tokens_per_s=100))
    assert reading(daemon)["slowdown"]["reason"] == "too little was generated to compare"
    prompt = [{"role": "user", "content": "one " * 2100}]
    with daemon.stream("echo", messages=prompt, max_tokens=100_000) as stream:
        assert next(stream)
        assert until(lambda: reading(daemon)["slowdown"].get("source") == "our own answers")
