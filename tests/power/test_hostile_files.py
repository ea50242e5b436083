"""Whatever stands in the files: nothing raises, and nobody is restricted by what is no value."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from trees import TREES, Tree, reading_of, write

from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level

PATHS = sorted(
    {path for tree in TREES for path in tree.contents}
    | {
        "proc/meminfo",
        "proc/stat",
        "proc/1/stat",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
        "sys/class/power_supply/BAT0/charge_control_end_threshold",
    }
)
WORDS = ["Battery", "Mains", "USB", "UPS", "Discharging", "Full", "cpu-thermal", "acpitz", "coretemp"]
JUNK = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"nan", b"-inf", b"1e308", b"0x7f", b"9" * 5000, b"\0" * 5000, b"-1"]),
    st.integers(-(2**80), 2**80).map(lambda number: str(number).encode()),
    st.sampled_from(WORDS).map(str.encode),
)
NOTHING = st.sampled_from([b"", b"nan", b"inf", b"-", b"0x12", b"one", b"1 2", b"\xff\xfe", b"9" * 40])


def machine(files: dict[str, bytes]) -> Reading:
    with TemporaryDirectory() as folder:
        for path, content in files.items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return reading_of(Path(folder))


@settings(max_examples=60, deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(PATHS), JUNK, max_size=25))
def test_no_content_raises(files: dict[str, bytes]) -> None:
    """And every value that comes out is one that a machine can have."""
    reading = machine(files)
    assert reading.percent is None or 0 <= reading.percent <= 100
    assert reading.watts is None or 0 <= reading.watts <= 1000
    assert reading.minutes_left is None or 0 <= reading.minutes_left <= 7 * 24 * 60
    assert reading.celsius is None or 0 < reading.celsius <= 150
    assert reading.headroom is None or 0 <= reading.headroom < 5


@settings(max_examples=50, deadline=None, database=None)
@given(st.sampled_from(TREES), st.data())
def test_values_that_are_none_restrict_nobody(tree: Tree, data: st.DataObject) -> None:
    """Every number of any machine may turn into nonsense; the worst that follows is that less is known."""
    texts = {path: str(content).encode() for path, content in tree.contents.items()}
    numbers = [path for path, content in tree.contents.items() if isinstance(content, int)]
    reading = machine(texts | {path: data.draw(NOTHING) for path in numbers})
    if b"Discharging" not in texts.values():
        assert reading.supply in (None, Supply.AC, tree.expect.get("supply"))
    assert (reading.thermal or 0) <= (ThermalLevel.SERIOUS if reading.is_throttled else ThermalLevel.NOMINAL)
    assert (reading.memory or Level.NONE) <= tree.expect.get("memory", 0)
    assert (reading.watts, reading.celsius, reading.headroom) == (None, None, None)


def test_a_name_that_is_none_is_passed_over(tmp_path: Path) -> None:
    """Names of folders are told to people, so they must be plain."""
    for name in ("A\x1b[2JC", "x" * 200):
        folder = f"sys/class/power_supply/{name}"
        write(tmp_path, {f"{folder}/type": "Mains", f"{folder}/online": 1})
    assert reading_of(tmp_path).origins["supply"].source == "there is no battery"
