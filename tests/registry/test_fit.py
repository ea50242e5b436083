"""Whether models fit, and what is said about it."""

import io
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from gguf_header import PUBLISHED, header
from pilotlight.cli.fit_report import lines
from pilotlight.core import Loading, Model
from pilotlight.registry.cost import Layout, estimate
from pilotlight.registry.fit import Machine, Subject, judge
from pilotlight.registry.gguf import read_header
from pilotlight.registry.gpu import gpus
from pilotlight.registry.reader import HeaderError
from pilotlight.registry.shape import Shape
from pilotlight.registry.subjects import of_files, of_header, subject
from pilotlight.runtimes.offload import Device, refusal

GB = 10**9

LAPTOP = Machine(bytes_total=16 * GB, bytes_available=8 * GB, bytes_per_s=40 * GB)


def published(name: str) -> Subject:
    return of_header(Model(name, Path("x.gguf")), "full", read_header(io.BytesIO(PUBLISHED[name].header())))


@pytest.mark.parametrize(
    ("name", "fits", "gigabytes", "tokens_per_s"),
    [
        ("Llama 3.2 1B", True, 1.63, 53),
        ("Llama 3.2 3B", True, 4.07, 21),
        ("Qwen3 0.6B", True, 2.47, 105),
        ("Qwen3 4B", True, 5.1, 17),
        ("Qwen3 8B", True, 7.67, 9),
        ("Gemma 3 4B", True, 4.79, 17),
        ("Phi-4-mini", True, 4.76, 17),
        ("gpt-oss-20b", False, 12.9, 15.6),
    ],
)
def test_a_laptop_is_told_what_fits(name: str, fits: bool, gigabytes: float, tokens_per_s: float) -> None:
    """With the context it gets when nobody says, and the speed that its memory allows."""
    verdict = judge(published(name), LAPTOP)
    (asked,) = (row for row in verdict.rows if row.context == 8192)
    assert verdict.fits is asked.fits is fits
    assert asked.at_most == pytest.approx(gigabytes * GB, rel=0.05)
    assert verdict.tokens_per_s == pytest.approx(tokens_per_s, rel=0.1)


def test_the_table_goes_up_to_the_trained_context() -> None:
    """And has the one that was asked for."""
    rows = judge(published("Qwen3 4B"), LAPTOP, context=10_000).rows
    assert [row.context for row in rows] == [2048, 4096, 8192, 10_000, 16384, 32768, 40960]
    assert all(row.at_load <= row.at_most for row in rows)
    assert sorted(row.at_most for row in rows) == [row.at_most for row in rows]
    assert all((row.at_most_8_bits or row.at_most) < row.at_most for row in rows)


def test_the_largest_context_that_fits_just_fits() -> None:
    """One step more would not."""
    found = published("Llama 3.2 3B")
    largest = judge(found, LAPTOP, context=131072).largest_context
    assert found.at(largest).at_most.total <= LAPTOP.bytes_available
    assert found.at(largest + 256).at_most.total > LAPTOP.bytes_available


def test_it_says_what_would_make_it_fit() -> None:
    """A smaller context, memory that others hold, or a coarser quantization."""
    advice = judge(published("Qwen3 8B"), LAPTOP, context=14_000).advice
    assert [line.split(":")[0] for line in advice] == [
        f"context = {judge(published('Qwen3 8B'), LAPTOP).largest_context} in its [[model]] table",
        'kv_cache_type = "q8_0" there',
        "free 1.6 GB of memory",
        "a coarser quantization",
    ]
    assert "Q2_K (3.1 GB of weights)" in advice[3]


def test_what_is_beyond_the_machine_is_said_to_be() -> None:
    """Nothing to close, nothing to choose."""
    small = replace(LAPTOP, bytes_total=2 * GB, bytes_available=GB // 4)
    verdict = judge(published("gpt-oss-20b"), small)
    assert (verdict.fits, verdict.largest_context) == (False, 0)
    assert verdict.advice == ("nothing here: the machine has too little memory for this model",)


@pytest.mark.parametrize(
    ("mode", "kv_cache_type", "can_save"),
    [("full", "auto", True), ("full", "f32", True), ("full", "q4_0", False), ("plain", "auto", False)],
)
def test_8_bits_are_shown_where_they_can_be_chosen(mode: str, kv_cache_type: str, can_save: bool) -> None:
    """Not where there is no flash attention, and not beside what is chosen and takes no more."""
    model = Model("x", Path("x.gguf"), loading=Loading(kv_cache_type))
    found = of_header(model, mode, read_header(io.BytesIO(PUBLISHED["Qwen3 4B"].header())))
    assert (found.at_8_bits is not None) is can_save


def test_what_is_chosen_is_what_is_judged() -> None:
    """4 bits of keys and values take a good quarter of 16."""
    header = read_header(io.BytesIO(PUBLISHED["Qwen3 4B"].header()))
    plain, coarse = (
        of_header(Model("x", Path("x.gguf"), loading=Loading(kind)), "full", header).at(8192).at_most.cells
        for kind in ("auto", "q4_0")
    )
    assert coarse == plain * 9 // 32


def test_a_model_whose_heads_are_odd_has_no_8_bits(tiny_gguf: Path) -> None:
    """Its heads have 16 values, and a block 32."""
    assert subject(Model("x", tiny_gguf), "full").at_8_bits is None


def test_who_has_a_limit_is_not_told_to_free_memory() -> None:
    """There may be plenty that it may not have."""
    limited = replace(LAPTOP, bytes_available=6 * GB, is_limited=True)
    advice = judge(published("gpt-oss-20b"), limited).advice
    assert "a limit that is 7.0 GB higher: it was given one" in advice
    assert not any(line.startswith("free ") for line in advice)


@pytest.mark.parametrize(
    ("available", "context", "advice"),
    [
        (6 * GB, 8192, "free 1.7 GB of memory"),  # of 8 that are free 2 stay so
        (GB, 8192, "free 7.7 GB of memory"),  # half of 2 that are free, but no more than 2 of more
        (6 * GB, 32768, None),
    ],
)
def test_what_stays_free_is_freed_too(available: int, context: int, advice: str | None) -> None:
    """Else the model would not fit afterwards either; and no memory is freed for what never fits."""
    reserving = replace(LAPTOP, bytes_available=available, bytes_reserved=2 * GB)
    told = [line.split(":")[0] for line in judge(published("Qwen3 8B"), reserving, context).advice]
    assert next((line for line in told if line.startswith("free ")), None) == advice


def test_what_fits_needs_no_advice() -> None:
    """Nobody wants to read it."""
    assert judge(published("Llama 3.2 1B"), LAPTOP).advice == ()


def test_a_header_is_judged_like_the_whole_file(tmp_path: Path, tiny_gguf: Path) -> None:
    """Without the weights that it tells of."""
    raw = tiny_gguf.read_bytes()
    start = read_header(io.BytesIO(raw)).data_start
    (tmp_path / "head.gguf").write_bytes(raw[:start])
    head = judge(subject(Model("x", tmp_path / "head.gguf"), "full"), LAPTOP)
    whole = judge(subject(Model("x", tiny_gguf), "full"), LAPTOP)
    assert head.rows == whole.rows


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """It would never answer."""
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(HeaderError, match="it is a pipe, a socket or a device, and no file"):
        subject(Model("x", tmp_path / "pipe.gguf"), "full")


def test_files_of_a_repository_differ_in_their_size_alone() -> None:
    """In a mode that maps them, too: where tensors lie is known of one only."""
    found = read_header(io.BytesIO(PUBLISHED["Qwen3 0.6B"].header()))
    sizes = {f"{size}.gguf": found.data_start + size * GB for size in (1, 3)}
    small, large = (one.at(2048).at_load.mapped for one in of_files(sizes, found, "plain"))
    assert (small, large) == (GB, 3 * GB)


@pytest.mark.parametrize("num_ahead", [0, 2])
def test_layers_that_no_worker_loads_are_in_no_file_of_a_repository(num_ahead: int) -> None:
    """Their part of each file is what it is of the one whose header is known."""
    layers = [(f"blk.{number}.ffn_up.weight", (64, 64), "F32") for number in range(4)]
    facts = PUBLISHED["Qwen3 0.6B"].metadata() | {"qwen3.block_count": 4}
    facts["qwen3.nextn_predict_layers"] = num_ahead
    found = read_header(io.BytesIO(header(facts, layers)))
    (one,) = of_files({"x.gguf": found.data_start + 2 * GB}, found, "plain")
    assert one.bytes_weights == one.bytes_active == 2 * GB * (4 - num_ahead) // 4


def test_a_first_file_without_tensors_says_nothing_of_the_weights() -> None:
    """The others of its model have them all."""
    found = read_header(io.BytesIO(header(PUBLISHED["Qwen3 0.6B"].metadata())))
    (one,) = of_files({"x-00001-of-00002.gguf": found.data_start + GB}, found, "plain")
    assert one.bytes_weights == GB


def test_a_projector_is_no_model(tmp_path: Path) -> None:
    """Though it is a GGUF."""
    (tmp_path / "mmproj.gguf").write_bytes(header({"general.architecture": "clip"}))
    with pytest.raises(HeaderError, match="this is no text model: its architecture is clip"):
        subject(Model("x", tmp_path / "mmproj.gguf"), "full")


def test_a_projector_beside_a_model_is_found_and_costs_nothing(tmp_path: Path, tiny_gguf: Path) -> None:
    """Nothing loads it as long as images are refused."""
    model = Model("x", tmp_path / "tiny.gguf")
    model.path.write_bytes(tiny_gguf.read_bytes())
    alone = subject(model, "full")
    (tmp_path / "x-mmproj-F16.gguf").write_bytes(header({"general.architecture": "clip"}))
    beside = subject(model, "full")
    assert (alone.projector, beside.projector) == (None, tmp_path / "x-mmproj-F16.gguf")
    assert beside.at(2048) == alone.at(2048)
    assert "x-mmproj-F16.gguf beside it is not loaded" in "\n".join(lines(judge(beside, LAPTOP)))


def on_a_gpu(name: str, gpu: Device, gpu_layers: int = -1) -> Subject:
    """As a build for it would load the model."""
    found = Shape.of(read_header(io.BytesIO(PUBLISHED[name].header())))
    layers = 0 if gpu.is_integrated else gpu_layers
    return replace(
        published(name),
        gpus=(gpu,),
        at=lambda context: estimate(found, Layout(context=context, gpu_layers=layers)),
    )


def test_what_a_gpu_holds_has_a_column_of_its_own() -> None:
    """The machine's memory needs no room for it; the GPU's does."""
    gpu = Device("CUDA0", "RTX 4050", is_integrated=False, bytes_total=6 * GB, bytes_free=5 * GB)
    verdict = judge(on_a_gpu("Qwen3 4B", gpu), replace(LAPTOP, bytes_available=3 * GB))
    (asked,) = (row for row in verdict.rows if row.context == verdict.context)
    assert verdict.fits
    assert asked.at_most < 3 * GB < asked.device < 6 * GB
    assert 8192 <= verdict.largest_context < 32768, "which its cells on the GPU bound"
    said = "\n".join(lines(verdict))
    assert "ON GPU" in said
    assert "CUDA0 (RTX 4050) computes it, too: 5.00 GB of 6.00 GB are free there now" in said
    assert "speed: not estimated where a GPU computes" in said
    assert verdict.tokens_per_s == 0


def test_a_gpu_that_is_too_small_is_told() -> None:
    """With what would help, which more memory in the machine is not."""
    gpu = Device("CUDA0", "old", is_integrated=False, bytes_total=4 * GB, bytes_free=4 * GB)
    verdict = judge(on_a_gpu("Qwen3 8B", gpu), LAPTOP)
    assert not verdict.fits
    assert verdict.advice[0].startswith("fewer gpu_layers, or a shorter context: the GPU lacks ")
    assert judge(on_a_gpu("Qwen3 8B", gpu, gpu_layers=12), LAPTOP).fits


def test_a_gpu_without_memory_of_its_own_takes_the_machine_s() -> None:
    """All of it is counted there."""
    gpu = Device("MTL0", "Apple M3", is_integrated=True, bytes_total=16 * GB, bytes_free=12 * GB)
    verdict = judge(on_a_gpu("Qwen3 4B", gpu), LAPTOP)
    assert [row.device for row in verdict.rows] == [0] * len(verdict.rows)
    assert [row.at_most for row in verdict.rows] == [
        row.at_most for row in judge(published("Qwen3 4B"), LAPTOP).rows
    ]
    said = "\n".join(lines(verdict))
    assert "MTL0 (Apple M3) computes it, too, and has no memory of its own" in said
    assert "ON GPU" not in said


@pytest.mark.skipif(bool(gpus()), reason="llama.cpp computes on a GPU here")
def test_layers_for_a_gpu_that_the_build_does_not_know_are_refused(tiny_gguf: Path) -> None:
    """As its load would be, in the same words."""
    wanted = Model("x", tiny_gguf, loading=Loading(gpu_layers=3))
    verdict = judge(subject(wanted, "full"), LAPTOP)
    assert not verdict.fits
    assert verdict.advice == (refusal(3),)
    assert verdict.largest_context == 0
    assert judge(subject(replace(wanted, loading=Loading(gpu_layers=0)), "full"), LAPTOP).fits
