"""Estimates, corrected by what was measured."""

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from pilotlight.core import Loading, Model, Size
from pilotlight.registry.cost import LIBRARY_BYTES
from pilotlight.registry.costs import Costs, layout
from pilotlight.registry.estimate import Estimates
from pilotlight.registry.gguf import read_model
from pilotlight.registry.ladder import MODES, Ladder
from pilotlight.registry.reader import HeaderError
from pilotlight.registry.records import MOST
from pilotlight.registry.shape import Shape
from pilotlight.runtimes.llamacpp import native
from pilotlight.runtimes.offload import Device
from pilotlight.worker.handle import Worker
from pilotlight.worker.size import in_rollup, size_of

MEASURED = Size(private=123_000_000, shared=45_000_000)

HUGE_PAGE = 2 * 2**20


@pytest.fixture
def model(tiny_gguf: Path) -> Model:
    return Model("tiny", tiny_gguf)


def fresh(folder: Path) -> Costs:
    """As after a restart of the daemon."""
    return Costs(folder / "state", Ladder(folder / "state"), clock=lambda: 5.0)


def test_before_the_first_load_there_is_an_estimate(tmp_path: Path, model: Model) -> None:
    """Of a process of its own, and more when its context is full."""
    cost = fresh(tmp_path).estimate(model)
    assert not cost.is_measured
    assert cost.at_load == cost.estimated
    assert 40_000_000 < cost.at_load.total < cost.at_most.total


def test_what_was_measured_replaces_it(tmp_path: Path, model: Model) -> None:
    """Also after a restart; what a full context takes comes on top, as estimated."""
    before = fresh(tmp_path).estimate(model)
    fresh(tmp_path).record(model, "full", MEASURED)
    after = fresh(tmp_path).estimate(model)
    assert (after.at_load, after.is_measured, after.estimated) == (MEASURED, True, before.estimated)
    assert after.at_most.total - after.at_load.total == before.at_most.total - before.at_load.total


def test_pages_of_a_mapped_file_that_were_dropped_are_charged_all_the_same(
    tmp_path: Path, model: Model
) -> None:
    """They come back with use; what was measured is told as it was."""
    mapped = replace(model, loading=Loading(mmap=True))
    before = fresh(tmp_path).estimate(mapped)
    fresh(tmp_path).record(mapped, "full", replace(before.at_load, shared=0))
    after = fresh(tmp_path).estimate(mapped)
    assert after.at_load == replace(before.at_load, shared=0)
    assert after.at_most.private == before.at_most.private
    assert after.at_most.shared == before.at_most.shared - LIBRARY_BYTES > 0


def test_weights_are_not_charged_twice_where_they_turn_out_not_to_be_mapped(
    tmp_path: Path, model: Model
) -> None:
    """On a processor, say, that wants them all in another order."""
    mapped = replace(model, loading=Loading(mmap=True))
    before = fresh(tmp_path).estimate(mapped)
    own = replace(before.at_load, private=before.at_load.total, shared=0)
    fresh(tmp_path).record(mapped, "full", own)
    assert fresh(tmp_path).estimate(mapped).at_most.total == before.at_most.total


def test_it_is_known_without_reading(tmp_path: Path, model: Model) -> None:
    """For who only shows it, as soon as there is something to show."""
    some = fresh(tmp_path)
    assert some.known(model) is None
    cost = some.estimate(model)
    assert some.known(model) == cost
    some.record(model, "full", MEASURED)
    known = some.known(model)
    assert known is not None
    assert known.at_load == MEASURED


@pytest.mark.parametrize(
    "change", [{"context": 512}, {"parallel": 3}, {"provider": "cuda"}, {"loading": Loading("f32")}]
)
def test_other_settings_are_another_cost(tmp_path: Path, model: Model, change: dict[str, int]) -> None:
    """Nobody measured them."""
    some = fresh(tmp_path)
    some.record(model, "full", MEASURED)
    assert not some.estimate(replace(model, **change)).is_measured  # type: ignore[arg-type]


def test_another_mode_is_another_cost(tmp_path: Path, model: Model) -> None:
    """It maps the file, say."""
    Ladder(tmp_path / "state").remember("llamacpp", "plain", "crash")
    some = fresh(tmp_path)
    some.record(model, "full", MEASURED)
    assert not some.estimate(model).is_measured
    some.record(model, "plain", MEASURED)
    assert some.estimate(model).is_measured


def test_a_changed_file_is_another_model(tmp_path: Path, tiny_gguf: Path) -> None:
    """Even of the same size."""
    path = tmp_path / "changing.gguf"
    path.write_bytes(tiny_gguf.read_bytes())
    some, model = fresh(tmp_path), Model("changing", path)
    some.record(model, "full", MEASURED)
    os.utime(path, (1, 1))
    assert not some.estimate(model).is_measured


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "[" * 10**5,
        "\xff",
        '{"version": 1}',
        '{"version": 1, "measured": 5}',
        '{"version": 1, "measured": {"a": {}}}',
    ],
)
def test_a_damaged_file_counts_as_empty(tmp_path: Path, model: Model, damage: str) -> None:
    """And is whole again after the next measurement."""
    some = fresh(tmp_path)
    some.record(model, "full", MEASURED)
    (tmp_path / "state" / "costs.json").write_text(damage)
    assert not some.estimate(model).is_measured
    some.record(model, "full", MEASURED)
    assert some.estimate(model).is_measured


@pytest.mark.parametrize("field", ["private", "shared"])
@pytest.mark.parametrize("number", ["null", '"1"', "-1", "1.5", "Infinity", "NaN", "1e999", "1" * 400, "[1]"])
def test_a_damaged_number_is_not_believed(tmp_path: Path, model: Model, field: str, number: str) -> None:
    """Whoever reckons with it would stumble."""
    some = fresh(tmp_path)
    some.record(model, "full", MEASURED)
    file = tmp_path / "state" / "costs.json"
    file.write_text(file.read_text().replace(str(getattr(MEASURED, field)), number))
    assert not some.estimate(model).is_measured
    some.record(model, "full", MEASURED)
    assert some.estimate(model).is_measured


def test_a_file_of_a_later_version_counts_as_empty(tmp_path: Path, model: Model) -> None:
    """Its numbers may mean something else."""
    some = fresh(tmp_path)
    some.record(model, "full", MEASURED)
    file = tmp_path / "state" / "costs.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 2}))
    assert not some.estimate(model).is_measured


def test_the_file_is_private_and_bounded(tmp_path: Path, model: Model) -> None:
    """The oldest measurement goes first."""
    some = fresh(tmp_path)
    some.record(model, "full", MEASURED)
    file = tmp_path / "state" / "costs.json"
    content = json.loads(file.read_text())
    (one,) = content["measured"].values()
    content["measured"] |= {f"{number:x}": one for number in range(MOST - 1)}
    file.write_text(json.dumps(content))
    some.record(replace(model, context=512), "full", MEASURED)
    assert len(json.loads(file.read_text())["measured"]) == MOST
    assert not some.estimate(model).is_measured
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["costs.json"]


def test_where_it_cannot_be_written_it_holds_until_the_end(tmp_path: Path, model: Model) -> None:
    """A full or read-only disk is no reason not to serve."""
    (tmp_path / "state").write_text("in the way")
    some = fresh(tmp_path)
    some.record(model, "full", MEASURED)
    known = some.known(model)
    assert known is not None
    assert known.at_load == MEASURED


def test_a_hostile_file_is_an_error(tmp_path: Path) -> None:
    """Not an estimate; nor is one that is not there."""
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(HeaderError):
        fresh(tmp_path).estimate(Model("bad", path))
    with pytest.raises(FileNotFoundError):
        fresh(tmp_path).estimate(Model("none", tmp_path / "none.gguf"))


def test_a_link_in_a_circle_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The system's word for it, and no other exception."""
    path = tmp_path / "circle.gguf"
    path.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        fresh(tmp_path).estimate(Model("circle", path))


def test_modes_are_laid_out_as_the_runtime_loads_them(model: Model) -> None:
    """The daemon does not import it, so both say it."""
    shape = Shape.of(read_model(model.path))
    for mode in MODES["llamacpp"]:
        ours, theirs = layout(model, shape, mode), native.MODES[mode]
        assert (ours.mmap, ours.flash_attention) == (theirs.mmap, False)
        assert bool(ours.repacked) <= theirs.extra_buffers


async def test_a_second_load_costs_what_the_first_did(tmp_path: Path, model: Model) -> None:
    """Within 2 %, or a huge page that only one has a use for; and the first is not far from the estimate,
    though nobody measured this machine."""
    some = fresh(tmp_path)
    estimated = some.estimate(model)
    first, second = await measured(model), await measured(model)
    assert first.total == pytest.approx(estimated.at_load.total, rel=0.3)
    some.record(model, "full", first)
    assert some.estimate(model).at_load.total == pytest.approx(second.total, rel=0.02, abs=HUGE_PAGE)


async def measured(model: Model) -> Size:
    """Of a real worker."""
    worker = await Worker.spawn(model)
    try:
        await worker.load("full", lambda _: None, 20)
        size = size_of(worker.pid)
    finally:
        await worker.stop()
    assert size is not None
    return size


def test_a_process_that_is_gone_has_no_size() -> None:
    """Nor one that never was."""
    assert size_of(2**22 + 1) is None


def test_what_is_out_on_swap_is_the_process_s_own() -> None:
    """It comes back with use. Pages of a file in a tmpfs may be out there, too: those are no process's."""
    rollup = {"Rss": 900, "Pss": 500, "Anonymous": 600, "Swap": 75, "SwapPss": 50}
    text = "0-1 ---p 00000000 00:00 0  [rollup]\n" + "".join(
        f"{key}: {value} kB\n" for key, value in rollup.items()
    )
    assert in_rollup(text) == Size(private=650 * 1024, shared=300 * 1024)


@pytest.mark.parametrize(("is_integrated", "has_own"), [(False, True), (True, False)])
def test_what_a_gpu_takes_is_charged_to_nobody(
    tmp_path: Path, model: Model, is_integrated: bool, has_own: bool
) -> None:
    """It is told apart, where the GPU has memory of its own; else it is the machine's."""
    gpu = Device("GPU0", "", is_integrated, 2**34, 2**34)
    with_gpu = Costs(tmp_path / "state", Ladder(tmp_path / "state"), devices=lambda _: (gpu,))
    alone, cost = fresh(tmp_path).estimate(model), with_gpu.estimate(model)
    assert (cost.device > 0) == has_own
    assert alone.device == 0
    if has_own:
        assert cost.at_load.total < alone.at_load.total
        assert Estimates(lambda _: cost).estimate(model) < Estimates(lambda _: alone).estimate(model)
