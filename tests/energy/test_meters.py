"""What counts joules: processors' counters in trees of files, gauges, and the user's own word."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from descriptors import no_descriptors
from pilotlight.energy.meters import (
    Gauge,
    GpuGauge,
    Method,
    ProcessorTime,
    Rapl,
    battery,
    board,
    cpu_seconds,
    meters_of,
)
from pilotlight.power.files import Files
from pilotlight.power.reading import Origin, Reading, Supply
from pilotlight.power.sampling import STALE_S

RANGE_UJ = 262_143_328_850
"""Of many an Intel processor."""


def zone(root: Path, number: str, name: str, energy_uj: Any, range_uj: Any = RANGE_UJ) -> Path:
    """A counter as the kernel shows it; the file with its count."""
    folder = root / f"sys/class/powercap/intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", name), ("max_energy_range_uj", range_uj), ("energy_uj", energy_uj)):
        (folder / file).write_text(f"{text}\n")
    return folder / "energy_uj"


def counted(meter: Rapl, now: float = 1.0) -> float:
    joules = meter.joules(now)
    assert joules is not None
    return joules


def test_packages_and_their_memory_are_counted_and_nothing_twice(tmp_path: Path) -> None:
    """`psys` holds the packages, `core` and `uncore` are parts of them."""
    names = {"0": "package-0", "1": "package-1", "0:0": "core", "0:1": "uncore", "1:0": "dram", "2": "psys"}
    files = {number: zone(tmp_path, number, name, 10**6) for number, name in names.items()}
    meter = Rapl(Files(tmp_path))
    before = counted(meter)
    for file in files.values():
        file.write_text("3000000\n")
    assert counted(meter) - before == pytest.approx(3 * 2)
    assert (meter.scope, meter.lacks) == ("package+dram", None)


def test_a_counter_that_begins_anew_is_followed(tmp_path: Path) -> None:
    """At the end of its range, on a busy server once in a quarter of an hour."""
    file = zone(tmp_path, "0", "package-0", RANGE_UJ - 500_000)
    meter = Rapl(Files(tmp_path))
    before = counted(meter)
    file.write_text("250000\n")
    assert counted(meter) - before == pytest.approx(0.75)


@pytest.mark.parametrize("energy_uj", [5_000_000, 210_000_000_000])
def test_what_a_counter_says_after_a_sleep_is_not_counted(tmp_path: Path, energy_uj: int) -> None:
    """It began anew, or went on all night, of which our clock knows nothing: it is a second later."""
    file = zone(tmp_path, "0", "package-0", 200_000_000_000)
    meter = Rapl(Files(tmp_path))
    before = counted(meter, now=101)
    file.write_text(f"{energy_uj}\n")
    assert (meter.joules(102), meter.lacks) == (None, None)
    file.write_text(f"{energy_uj + 2_000_000}\n")
    assert counted(meter, now=103) - before == pytest.approx(2)


def test_what_was_counted_in_a_sleep_that_the_system_tells_of_is_not_counted(tmp_path: Path) -> None:
    """An hour of suspend-to-idle, at half a watt, is less than a second of large processors."""
    slept_s = 60.0
    file = zone(tmp_path, "0", "package-0", 5_000_000)
    meter = Rapl(Files(tmp_path), lambda: slept_s)
    before = counted(meter, now=101)
    slept_s += 3600
    file.write_text("1805000000\n")
    assert (meter.joules(102), meter.lacks) == (None, None)
    file.write_text("1807000000\n")
    assert counted(meter, now=103) - before == pytest.approx(2)


def test_a_sleep_while_nobody_computed_costs_the_next_request_nothing(tmp_path: Path) -> None:
    """The first look at its begin is one to count from."""
    file = zone(tmp_path, "0", "package-0", 200_000_000_000)
    meter = Rapl(Files(tmp_path))
    counted(meter, now=101)
    file.write_text("5000000\n")
    before = counted(meter, now=102 + STALE_S)
    file.write_text("7000000\n")
    assert counted(meter, now=103 + STALE_S) - before == pytest.approx(2)


@pytest.mark.parametrize("passed", [0.0, 0.25, 1.0])
def test_what_processors_can_draw_is_counted(tmp_path: Path, passed: float) -> None:
    """Four large ones at their limit, by a clock that is half a second late."""
    files = [zone(tmp_path, str(number), f"package-{number}", 0) for number in range(4)]
    meter = Rapl(Files(tmp_path))
    before = counted(meter, now=101)
    joules = 500 * (passed + 0.5)
    for file in files:
        file.write_text(f"{joules * 10**6:.0f}\n")
    assert counted(meter, now=101 + passed) - before == pytest.approx(4 * joules)


def test_a_counter_that_only_root_may_read_counts_nothing_and_is_named(tmp_path: Path) -> None:
    """One of two is as good as none. (A folder cannot be read by root either, who runs the tests.)"""
    zone(tmp_path, "0", "package-0", 5)
    file = zone(tmp_path, "1", "package-1", 5)
    file.unlink()
    file.mkdir()
    meter = Rapl(Files(tmp_path))
    assert meter.joules(0) is None
    assert meter.lacks is not None and "intel-rapl:1/energy_uj cannot be read" in meter.lacks


@pytest.mark.parametrize(("energy", "range_uj"), [("x", 9), (-1, 9), (10, 9), (5, 0), (5, "x"), ("", 9)])
def test_nonsense_is_no_count(tmp_path: Path, energy: Any, range_uj: Any) -> None:
    """No number, beyond the counter's range, or a counter without one."""
    zone(tmp_path, "0", "package-0", energy, range_uj)
    meter = Rapl(Files(tmp_path))
    assert meter.joules(0) is None and meter.lacks is not None


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    """As virtual machines are."""
    meter = Rapl(Files(tmp_path))
    assert meter.joules(0) is None
    assert meter.lacks == "there is no counter of a processor in sys/class/powercap"


def test_a_gauge_counts_watts_times_time_until_the_next_one() -> None:
    """10 W for 2 s and 4 W for 1 s."""
    meter = gauge()
    meter.on_reading(Reading(watts=10), 5)
    meter.on_reading(Reading(watts=4), 7)
    assert meter.joules(8) == pytest.approx(24)
    assert meter.joules(8.5) == pytest.approx(26)


def test_a_gauge_that_was_not_read_lately_counts_nothing() -> None:
    """Nor one that says nothing."""
    meter = gauge()
    assert meter.joules(0) is None
    meter.on_reading(Reading(watts=10), 5)
    assert meter.joules(5 + STALE_S) is not None
    assert meter.joules(5.1 + STALE_S) is None
    meter.on_reading(Reading(), 30)
    assert (meter.joules(30), meter.lacks) == (None, "it is a test")


def test_only_another_value_is_news() -> None:
    """A gauge says the same until it has measured again."""
    meter = gauge()
    meter.on_reading(Reading(watts=10), 5)
    meter.on_reading(Reading(watts=10), 6)
    assert (meter.has_news(4), meter.has_news(5)) == (True, False)
    meter.on_reading(Reading(watts=11), 7)
    assert meter.has_news(6)


def gauge() -> Gauge:
    return Gauge(Method.BATTERY, "system", lambda reading: reading.watts, "it is a test")


@pytest.mark.parametrize(
    ("supply", "source", "of_battery", "of_board"),
    [
        (Supply.BATTERY, "power_supply BAT0", True, False),
        (Supply.WEAK, "power_supply BAT0", False, False),
        (Supply.AC, "ina3221 VDD_IN", False, True),
    ],
)
def test_watts_are_the_machines_only_where_nothing_else_gives_any(
    supply: Supply, source: str, of_battery: bool, of_board: bool
) -> None:
    """Beside a weak charger the battery gives a part of it."""
    reading = Reading(supply=supply, watts=10, origins={"watts": Origin(source, 0)})
    for meter, counts in ((battery(), of_battery), (board(), of_board)):
        meter.on_reading(reading, 1)
        assert (meter.joules(2) is not None) is counts


def test_a_gpu_is_counted_for_the_models_on_it() -> None:
    """And when none is, its reading says why it counts nothing."""
    meter = GpuGauge()
    meter.on_reading(Reading(gpu_watts=50, gpu_pids=(7,)), 1)
    assert (meter.joules(2), meter.counts(7), meter.counts(8), meter.lacks) == (50, True, False, None)
    meter.on_reading(Reading(unknown={"gpu_watts": "it sleeps"}), 2)
    assert (meter.joules(3), meter.counts(7), meter.lacks) == (None, False, "it sleeps")


@pytest.mark.parametrize(
    ("platform", "is_own_root", "has_counters"),
    [("linux", True, True), ("win32", True, False), ("darwin", True, False), ("win32", False, True)],
)
def test_a_processor_s_counters_are_looked_for_where_linux_files_are(
    platform: str, is_own_root: bool, has_counters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows would ask the network for them, each time."""
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", platform)
        files = Files(Path(tmp_path.anchor) if is_own_root else tmp_path)
    assert any(isinstance(meter, Rapl) for meter in meters_of(files)) is has_counters


def test_processor_time_counts_only_with_the_users_word() -> None:
    """Else it would be a guess."""
    unset, meter = ProcessorTime(0), ProcessorTime(7.5)
    for one in (unset, meter):
        one.used(2)
    assert (unset.joules(0), meter.joules(0)) == (None, 15)
    assert unset.lacks == "power.watts_per_core is not set"


def test_the_processor_time_of_nobody_is_not_known() -> None:
    """Its process has ended."""
    assert cpu_seconds(2**31 - 1) is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no file is read for it")
def test_processor_time_is_not_known_while_no_file_can_be_opened() -> None:
    """Of a process that runs; it is when one can be again."""
    with no_descriptors():
        assert cpu_seconds(os.getpid()) is None
    assert cpu_seconds(os.getpid())
