"""How many cores a process may use, from trees of files as machines and containers have them."""

import os
from collections.abc import Collection
from pathlib import Path

import psutil
import pytest

from pilotlight.runtimes.limits import num_cores

EIGHT = range(8)


def machine(root: Path, files: dict[str, str], siblings: str = "core_cpus_list") -> Path:
    """Of eight processors, two on each core, as Intel's are numbered."""
    topology = {f"sys/devices/system/cpu/cpu{n}/topology/{siblings}": f"{n % 4},{n % 4 + 4}" for n in EIGHT}
    for name, content in (topology | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


@pytest.mark.parametrize("siblings", ["core_cpus_list", "thread_siblings_list"])
@pytest.mark.parametrize(("processors", "cores"), [(EIGHT, 4), ({0, 4}, 1), ({1, 2}, 2), ({0, 4, 5}, 2)])
def test_two_processors_on_a_core_are_one(
    tmp_path: Path, siblings: str, processors: Collection[int], cores: int
) -> None:
    """Also where a cpuset leaves us only some of them; older kernels have another name for it."""
    assert num_cores(machine(tmp_path, {}, siblings), processors) == cores


@pytest.mark.parametrize(("limit", "cores"), [("max", 4), ("150000", 2), ("20000", 1), ("1200000", 4)])
def test_a_container_has_no_more_cores_than_time(tmp_path: Path, limit: str, cores: int) -> None:
    """What is left of a core is one."""
    files = {"proc/self/cgroup": "0::/docker/1234", "sys/fs/cgroup/cpu.max": f"{limit} 100000"}
    assert num_cores(machine(tmp_path, files), EIGHT) == cores


def test_the_tightest_cgroup_above_us_counts(tmp_path: Path) -> None:
    """One without a limit does not."""
    files = {
        "proc/self/cgroup": "0::/user/app",
        "sys/fs/cgroup/user/app/cpu.max": "max 100000",
        "sys/fs/cgroup/user/cpu.max": "400000 200000",
        "sys/fs/cgroup/cpu.max": "300000 100000",
    }
    assert num_cores(machine(tmp_path, files), EIGHT) == 2


def test_the_first_version_of_cgroups(tmp_path: Path) -> None:
    """Other names; no limit is -1 there."""
    files = {
        "proc/self/cgroup": "4:memory:/b\n3:cpu,cpuacct:/a\n0::/",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "250000",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert num_cores(machine(tmp_path, files), EIGHT) == 3


def test_without_such_files_it_is_what_the_system_says(tmp_path: Path) -> None:
    """And at least one."""
    assert num_cores(tmp_path, EIGHT) == min(8, psutil.cpu_count(logical=False) or 8)
    assert num_cores(tmp_path, ()) == 1


def test_this_machine_can_be_counted() -> None:
    """Whatever it is."""
    assert 1 <= num_cores() <= (os.cpu_count() or 1)
