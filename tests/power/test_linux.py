"""What has to be compared with the look before: load, trends, throttle counters; and what changes
meanwhile."""

import os
import shutil
from pathlib import Path
from time import thread_time

import pytest
from trees import TREES, Tree, write

from pilotlight.power.files import Files
from pilotlight.power.finding import Known, assemble
from pilotlight.power.linux import Linux
from pilotlight.power.load import Load
from pilotlight.power.reading import Confidence, Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level

ZONE = "sys/class/thermal/thermal_zone0"
COUNTER = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"


def look(machine: Linux, now: float, pids: tuple[int, ...] = ()) -> Reading:
    return assemble(machine.look(now, pids), now)


def stat(user: int, idle: int, steal: int = 0) -> str:
    return f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 1 1 1"


def load(machine: Load, now: float) -> float | None:
    """7 is the number of our process."""
    return assemble(machine.read(now, (7,)), now).load


def test_load_is_what_others_use(tmp_path: Path) -> None:
    """Our own ticks, whatever our process is called, are not among it. What was stolen from us is: it makes
    us slow, and is no heat."""
    machine = Load(Files(tmp_path), tmp_path)
    ours = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0"
    write(tmp_path, {"proc/stat": stat(100, 100), "proc/7/stat": f"{ours} 50 5 0 0"})
    assert load(machine, 0) is None
    write(tmp_path, {"proc/stat": stat(200, 200, 90), "proc/7/stat": f"{ours} 95 20 0 0"})
    assert load(machine, 1) == pytest.approx((100 + 90 - 60) / 290)


def test_a_worker_that_begins_is_ours_from_its_first_tick(tmp_path: Path) -> None:
    """What it computed before anybody looked at it is no load of others."""
    machine = Load(Files(tmp_path), tmp_path)
    write(tmp_path, {"proc/stat": stat(100, 100)})
    load(machine, 0)
    write(tmp_path, {"proc/stat": stat(200, 200), "proc/7/stat": "7 (a) S 1 1 1 0 -1 0 0 0 0 0 80 10 0 0"})
    assert load(machine, 1) == pytest.approx((100 - 90) / 200)


def test_in_a_container_a_number_is_another_process_of_the_machine(tmp_path: Path) -> None:
    """What that one computes is load of others, and ours is not where the machine's files are."""
    host, container = tmp_path / "host", tmp_path / "container"
    machine = Load(Files(host), container)
    for now, theirs, ours in ((0, 10, 10), (1, 90, 30)):
        write(host, {"proc/stat": stat(100 + now * 100, 100 + now * 100)})
        for root, ticks in ((host, theirs), (container, ours)):
            write(root, {"proc/7/stat": f"7 (a) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0"})
        found = load(machine, now)
    assert found == pytest.approx((100 - 20) / 200)


def test_load_needs_two_looks_in_a_row(tmp_path: Path) -> None:
    """After a pause the first one is compared with nothing."""
    machine = Linux(tmp_path)
    write(tmp_path, {"proc/stat": stat(100, 100)})
    look(machine, 0)
    write(tmp_path, {"proc/stat": stat(900, 200)})
    reading = look(machine, 3600)
    assert (reading.load, reading.unknown["load"]) == (None, "needs two samples")


def test_a_forecast_comes_with_the_third_sample(tmp_path: Path) -> None:
    """And continues the line; headroom is there from the first."""
    machine = Linux(tmp_path)
    write(tmp_path, {f"{ZONE}/type": "cpu-thermal", f"{ZONE}/trip_point_0_type": "passive",
                     f"{ZONE}/trip_point_0_temp": 95000})  # fmt: skip
    readings = []
    for second in range(4):
        write(tmp_path, {f"{ZONE}/temp": 80000 + second * 250})
        readings.append(look(machine, second))
    assert [reading.forecast is None for reading in readings] == [True, True, False, False]
    assert readings[3].headroom == pytest.approx((80.75 - 65) / 30)
    assert readings[3].forecast == pytest.approx((80.75 + 7.5 - 65) / 30)


def test_a_zone_of_acpi_is_not_believed_before_it_moves(tmp_path: Path) -> None:
    """Many firmwares report a constant there, and some a hot one."""
    machine = Linux(tmp_path)
    write(tmp_path, {f"{ZONE}/type": "acpitz", f"{ZONE}/temp": 96000, f"{ZONE}/trip_point_0_type": "critical",
                     f"{ZONE}/trip_point_0_temp": 105000})  # fmt: skip
    assert [look(machine, second).thermal for second in range(5)] == [None] * 5
    write(tmp_path, {f"{ZONE}/temp": 96100})
    assert look(machine, 5).thermal is ThermalLevel.SERIOUS


def test_a_throttle_counter_that_moves_means_throttling(tmp_path: Path) -> None:
    """For a while, because it moves once when throttling begins; what it counted before does not matter."""
    machine = Linux(tmp_path)
    counts = [5000, 5000, 5001, *[5001] * 12]
    throttled = []
    for second, count in enumerate(counts):
        write(tmp_path, {COUNTER: count})
        throttled.append(look(machine, second).is_throttled)
    assert throttled == [None, False, *[True] * 10, False, False, False]


def test_that_it_still_throttles_is_a_guess(tmp_path: Path) -> None:
    """Only the look that saw the counter move knows; cooling devices know, and are believed then."""
    machine = Linux(tmp_path)
    trust = []
    for second, count in enumerate((5000, 5001, 5001, 5002, 5002)):
        write(tmp_path, {COUNTER: count})
        trust.append(look(machine, second).confidence("is_throttled").value)
    assert trust[1:] == ["derived", "guessed", "derived", "guessed"]
    write(tmp_path, {"sys/class/thermal/cooling_device0/type": "Processor",
                     "sys/class/thermal/cooling_device0/cur_state": 2})  # fmt: skip
    assert look(machine, 1000).confidence("is_throttled") is Confidence.MEASURED


def test_throttling_during_a_pause_is_no_news(tmp_path: Path) -> None:
    """The counter may have moved an hour ago."""
    machine = Linux(tmp_path)
    for now, count in ((0, 1), (3600, 900), (3601, 900)):
        write(tmp_path, {COUNTER: count})
        reading = look(machine, now)
    assert reading.is_throttled is False


def test_who_is_throttled_is_hot(tmp_path: Path) -> None:
    """Without any thermometer, too."""
    write(tmp_path, {"sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
                     "sys/class/thermal/cooling_device0/cur_state": 2})  # fmt: skip
    assert look(Linux(tmp_path), 0).thermal is ThermalLevel.SERIOUS


def test_of_those_who_say_so_the_best_one_counts() -> None:
    """Whoever speaks first: a guess hides no counter."""
    found = [
        Known("is_throttled", True, "power-profiles", Confidence.GUESSED),
        Known("is_throttled", True, "throttle counters", Confidence.DERIVED),
        Known("is_throttled", False, "cooling devices"),
    ]
    assert assemble(found, 0).origins["is_throttled"].source == "throttle counters"


@pytest.mark.parametrize(("celsius", "level"), [(60, "NOMINAL"), (81, "SERIOUS")])
def test_who_is_throttled_in_the_cool_is_not_hot(tmp_path: Path, celsius: int, level: str) -> None:
    """Somebody has switched turbo off, or saves power."""
    write(tmp_path, {f"{ZONE}/type": "cpu-thermal", f"{ZONE}/trip_point_0_type": "passive",
                     f"{ZONE}/trip_point_0_temp": 95000, f"{ZONE}/temp": celsius * 1000,
                     "sys/class/thermal/cooling_device0/type": "Processor",
                     "sys/class/thermal/cooling_device0/cur_state": 2})  # fmt: skip
    assert look(Linux(tmp_path), 0).thermal is ThermalLevel[level]


PI = {
    "sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.2",
    "sys/class/hwmon/hwmon1/name": "rpi_volt",
    "sys/devices/platform/soc/soc:firmware/uevent": "DRIVER=raspberrypi-firmware",
}
"""By any of these files it is one: containers see none of /sys/firmware."""


@pytest.mark.parametrize("file", PI)
@pytest.mark.parametrize(("celsius", "level"), [(84, "SERIOUS"), (86.5, "SERIOUS"), (89, "CRITICAL")])
def test_a_pi_that_its_firmware_holds_is_not_critical(
    tmp_path: Path, file: str, celsius: float, level: str
) -> None:
    """At 85 degrees, all day, also where the kernel switches it off at 90."""
    write(tmp_path, {file: PI[file], f"{ZONE}/type": "cpu-thermal", f"{ZONE}/trip_point_0_type": "critical",
                     f"{ZONE}/trip_point_0_temp": 90000, f"{ZONE}/temp": int(celsius * 1000)})  # fmt: skip
    assert look(Linux(tmp_path), 0).thermal is ThermalLevel[level]


@pytest.mark.parametrize(("alarm", "supply"), [("", Supply.WEAK), ("0", None)])
def test_a_pi_s_firmware_is_asked_where_no_alarm_is_told(
    tmp_path: Path, alarm: str, supply: Supply | None
) -> None:
    """Elsewhere asking it would make newer kernels write a warning."""
    chip = "sys/class/hwmon/hwmon1"
    write(tmp_path, {f"{chip}/name": "rpi_volt", f"{chip}/in0_lcrit_alarm": alarm,
                     "sys/devices/platform/soc/soc:firmware/get_throttled": "1"})  # fmt: skip
    assert look(Linux(tmp_path), 0).supply is supply


def test_changes_are_seen_live(tmp_path: Path) -> None:
    """The plug is pulled, and later the battery taken out."""
    machine = Linux(tmp_path)
    folder = tmp_path / "sys/class/power_supply"
    write(folder, {"AC/type": "Mains", "AC/online": 1})
    write(folder, {"BAT0/type": "Battery", "BAT0/status": "Full", "BAT0/capacity": 90})
    assert look(machine, 0).supply is Supply.AC
    write(folder, {"AC/online": 0, "BAT0/status": "Discharging"})
    reading = look(machine, 1)
    assert (reading.supply, reading.percent) == (Supply.BATTERY, 90)
    shutil.rmtree(folder / "BAT0")
    assert look(machine, 2).supply is Supply.AC


def test_stalls_are_somebody_elses_while_much_memory_is_free(tmp_path: Path) -> None:
    """At a limit of their own: the kernel's triggers are not believed then, either."""
    stalls = "some avg10=90.00 avg60=1 avg300=1 total=1\nfull avg10=80.00 avg60=1 avg300=1 total=1"
    for free, level in ((9000, Level.NONE), (1000, Level.CRITICAL), ("junk", Level.CRITICAL)):
        meminfo = f"MemTotal:       10000 kB\nMemFree:        {free} kB"
        write(tmp_path, {"proc/pressure/memory": stalls, "proc/meminfo": meminfo})
        assert look(Linux(tmp_path), 0).memory is level


def test_a_pipe_does_not_hold_it_up(tmp_path: Path) -> None:
    """Nor does a folder in the place of a file."""
    write(tmp_path, {"sys/class/power_supply/AC/type": "Mains"})
    os.mkfifo(tmp_path / "sys/class/power_supply/AC/online")
    (tmp_path / "proc/stat").mkdir(parents=True)
    assert look(Linux(tmp_path), 0).supply is Supply.AC


def test_folders_full_of_junk_cost_little(tmp_path: Path) -> None:
    """A look stays below 5 ms of computing with a thousand entries that mean nothing in every folder."""
    for folder in ("power_supply", "hwmon", "thermal"):
        for number in range(1000):
            (tmp_path / "sys/class" / folder / f"{folder}{number}").mkdir(parents=True)
    machine = Linux(tmp_path)
    times = []
    for second in range(7):
        started_at = thread_time()
        look(machine, second)
        times.append(thread_time() - started_at)
    assert min(times) < 0.005


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_a_machine_may_vanish_at_any_moment(tree: Tree, tmp_path: Path) -> None:
    """Device by device: nothing raises, who is on mains stays so, and in the end nothing is known."""
    tree.write(tmp_path)
    machine = Linux(tmp_path)
    for second, folder in enumerate(sorted(tree.files)):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        reading = look(machine, second)
        if "Discharging" not in tree.contents.values():
            assert reading.supply in (None, Supply.AC, tree.expect.get("supply"))
    shutil.rmtree(tmp_path / "sys", ignore_errors=True)
    assert look(machine, 99).origins == {}
