"""Readings of memory, from trees of files as machines and containers have them."""

from pathlib import Path

import pytest

from descriptors import no_descriptors
from pilotlight.registry.budget import Memory
from pilotlight.registry.memory import read

MIB = 2**20

MEMINFO = f"MemTotal: {8192 * 1024} kB\nMemFree: 1 kB\nMemAvailable: {4096 * 1024} kB\nHugePages_Total: 0\n"


def tree(root: Path, **files: str) -> Path:
    """Files by their paths, with : for / in the names."""
    for name, text in {"proc:meminfo": MEMINFO, **files}.items():
        path = root / name.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(limit: str, current: int, inactive: int = 0, at: str = "") -> dict[str, str]:
    where = f"sys:fs:cgroup:{at}"
    return {
        f"{where}memory.max": limit,
        f"{where}memory.current": f"{current}\n",
        f"{where}memory.stat": f"anon 5\ninactive_file {inactive // 4}\nactive_file {inactive * 3 // 4}\n",
    }


def test_a_machine_without_cgroups_has_what_the_kernel_says(tmp_path: Path) -> None:
    """Total and available."""
    assert read(tree(tmp_path)) == Memory(8192 * MIB, 4096 * MIB)


def test_a_limit_of_our_cgroup_is_the_machine(tmp_path: Path) -> None:
    """Its page cache is as good as free, also what was used lately: a model's file, say."""
    limits = v2(f"{1000 * MIB}\n", 700 * MIB, 200 * MIB, at="user:app:")
    assert read(tree(tmp_path, **limits, **{"proc:self:cgroup": "0::/user/app\n"})) == Memory(
        1000 * MIB, 500 * MIB
    )


def test_the_tightest_cgroup_above_us_counts(tmp_path: Path) -> None:
    """For the total and what is available alike; one without a limit does not."""
    limits = v2("max\n", 0, at="user:app:") | v2(f"{2000 * MIB}", 1900 * MIB, at="user:")
    assert read(tree(tmp_path, **limits, **{"proc:self:cgroup": "0::/user/app\n"})) == Memory(
        2000 * MIB, 100 * MIB
    )


@pytest.mark.parametrize(
    ("high", "most"),
    [(f"{900 * MIB}\n", "max\n"), (f"{900 * MIB}\n", f"{1000 * MIB}\n"), ("max\n", f"{900 * MIB}\n")],
)
def test_what_slows_a_cgroup_down_is_a_limit_too(tmp_path: Path, high: str, most: str) -> None:
    """As systemd's MemoryHigh, with or without a MemoryMax; of the two, the tighter one."""
    files = v2(most, 700 * MIB) | {"sys:fs:cgroup:memory.high": high, "proc:self:cgroup": "0::/\n"}
    assert read(tree(tmp_path, **files)) == Memory(900 * MIB, 200 * MIB)


def test_a_container_sees_its_limit_at_the_root(tmp_path: Path) -> None:
    """The path it is told does not exist there."""
    files = v2(f"{500 * MIB}\n", 600 * MIB) | {"proc:self:cgroup": "0::/docker/1234\n"}
    assert read(tree(tmp_path, **files)) == Memory(500 * MIB, 0)


def test_the_first_version_of_cgroups(tmp_path: Path) -> None:
    """Other names; no limit is a huge number there."""
    where = "sys:fs:cgroup:memory:"
    files = {
        "proc:self:cgroup": "3:cpu:/\n4:memory:/a\n0::/\n",
        f"{where}a:memory.limit_in_bytes": f"{300 * MIB}\n",
        f"{where}a:memory.usage_in_bytes": f"{100 * MIB}\n",
        f"{where}a:memory.stat": "inactive_file 1\n"
        f"total_inactive_file {30 * MIB}\ntotal_active_file {20 * MIB}\n",
        f"{where}memory.limit_in_bytes": "9223372036854771712\n",
        f"{where}memory.usage_in_bytes": "5\n",
        f"{where}memory.stat": "",
    }
    assert read(tree(tmp_path, **files)) == Memory(300 * MIB, 250 * MIB)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads Linux's files")
def test_this_machine_can_be_read() -> None:
    """Whatever it is."""
    memory = read()
    assert 0 < memory.bytes_available <= memory.bytes_total


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads Linux's files")
def test_what_was_read_last_is_told_while_no_file_can_be_opened(tmp_path: Path) -> None:
    """With the cgroup's limit, as before; what was never read is not made up."""
    files = v2(f"{500 * MIB}\n", 400 * MIB) | {"proc:self:cgroup": "0::/\n"}
    root = tree(tmp_path, **files)
    before = read(root)
    with no_descriptors():
        assert read(root) == before == Memory(500 * MIB, 100 * MIB)
        with pytest.raises(OSError, match="open files"):
            read(tmp_path / "unread")
