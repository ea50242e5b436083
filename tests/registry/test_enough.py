"""What is kept of how many threads are enough."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pilotlight.core import Loading, Model
from pilotlight.power.clocks import Clocks
from pilotlight.power.reading import Reading, Supply
from pilotlight.registry.enough import MOST_TRIES, Enough

BATTERY = Reading(supply=Supply.BATTERY)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"weights")
    return Model("m", path)


class Bench:
    """A machine, and what is kept of it."""

    def __init__(self, state_dir: Path) -> None:
        self.reading = Reading()
        self._state_dir = state_dir

    def fresh(self, model: Model, mode: str = "full") -> Enough:
        """As after a restart of the daemon, with the model about to be loaded."""
        enough = Enough(self._state_dir, Clocks(lambda: self.reading), clock=lambda: 5.0)
        enough.look(model, mode)
        return enough

    def measure(self, model: Model, threads: int) -> None:
        enough = self.fresh(model)
        assert enough.ask(model.name)
        clock = enough.answer(model.name, threads)
        assert clock is not None
        enough.record(model, "full", clock)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state")


def test_it_is_measured_once(bench: Bench, model: Model) -> None:
    """And known after a restart."""
    assert bench.fresh(model).known("m") == 0
    bench.measure(model, 3)
    enough = bench.fresh(model)
    assert enough.known("m") == 3
    assert not enough.ask("m")


def test_other_clocks_are_another_measurement(bench: Bench, model: Model) -> None:
    """Until it is made, the most that ever were needed are enough."""
    bench.measure(model, 3)
    bench.reading = BATTERY
    assert bench.fresh(model).known("m") == 3
    bench.measure(model, 5)
    bench.reading = replace(BATTERY, is_saving=True)
    assert bench.fresh(model).known("m") == 5
    bench.reading = Reading()
    assert bench.fresh(model).known("m") == 3


@pytest.mark.parametrize("change", [{"threads": 99}, {"loading": Loading(gpu_layers=0)}])
def test_other_settings_are_another_measurement(bench: Bench, model: Model, change: dict[str, int]) -> None:
    """And so is another mode, and another file under the same name."""
    bench.measure(model, 3)
    assert bench.fresh(replace(model, **change)).known("m") == 0  # type: ignore[arg-type]
    assert bench.fresh(model, "plain").known("m") == 0
    model.path.write_bytes(b"other weights")
    assert bench.fresh(model).known("m") == 0


@pytest.mark.parametrize("threads", [0, -3, "many", None, 1.5, [2]])
def test_a_damaged_record_is_not_believed(bench: Bench, model: Model, tmp_path: Path, threads: Any) -> None:
    """Whatever somebody wrote into it."""
    bench.measure(model, 3)
    file = tmp_path / "state" / "threads.json"
    content = json.loads(file.read_text())
    for one in content["measured"].values():
        one["threads"] = threads
    file.write_text(json.dumps(content))
    enough = bench.fresh(model)
    assert enough.known("m") == 0
    assert enough.ask("m")


def test_a_busy_machine_is_not_asked(bench: Bench, model: Model) -> None:
    """Nor one that changed meanwhile believed."""
    bench.reading = Reading(load=0.5)
    assert not bench.fresh(model).ask("m")
    for meanwhile in (Reading(load=0.5), BATTERY):
        bench.reading = Reading()
        enough = bench.fresh(model)
        assert enough.ask("m")
        bench.reading = meanwhile
        assert enough.answer("m", 3) is None
        assert enough.known("m") == 0


def test_what_does_not_come_out_is_not_tried_for_ever(bench: Bench, model: Model) -> None:
    """Until the daemon starts again."""
    enough = bench.fresh(model)
    for _ in range(MOST_TRIES):
        assert enough.ask("m")
        assert enough.answer("m", 0) is None
    enough.look(model, "full")
    assert not enough.ask("m")
    assert bench.fresh(model).ask("m")


def test_what_was_tried_in_vain_is_tried_again_with_another_file(bench: Bench, model: Model) -> None:
    """Or other settings, or in another mode: that is another measurement."""
    enough = bench.fresh(model)
    for _ in range(MOST_TRIES):
        assert enough.ask("m")
        enough.answer("m", 0)
    model.path.write_bytes(b"a larger quantization")
    for changed, mode in ((model, "full"), (replace(model, threads=99), "full"), (model, "plain")):
        assert not enough.ask("m")
        enough.look(changed, mode)
        for _ in range(MOST_TRIES):
            assert enough.ask("m")
            enough.answer("m", 0)


def test_what_cannot_be_written_is_measured_once(bench: Bench, model: Model) -> None:
    """As long as it is the same measurement."""
    enough = bench.fresh(model)
    assert enough.ask("m")
    assert enough.answer("m", 3) is not None
    enough.look(model, "full")
    assert (enough.known("m"), enough.ask("m")) == (3, False)
    enough.look(model, "plain")
    assert (enough.known("m"), enough.ask("m")) == (0, True)
