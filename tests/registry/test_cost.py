"""From a header and settings to bytes: against published sizes, and against llama.cpp itself."""

import ctypes
import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gguf_header import PUBLISHED, Published, header
from pilotlight.registry.cost import (
    GPU_MICROBATCH,
    MICROBATCH,
    PAD_CELLS,
    WARM_UP_TOKENS,
    Layout,
    cell_bytes,
    estimate,
    repacked_kinds,
)
from pilotlight.registry.gguf import read_header, read_model
from pilotlight.registry.ladder import features
from pilotlight.registry.reader import HeaderError
from pilotlight.registry.shape import Layer, Shape
from pilotlight.runtimes import batching
from pilotlight.runtimes.llamacpp import native
from pilotlight.runtimes.llamacpp.layout import UNIT, choose
from pilotlight.runtimes.llamacpp.library import import_llama

GB = 10**9


def shape(name: str, **changes: Any) -> Shape:
    return Shape.of(read_header(io.BytesIO(dataclasses.replace(PUBLISHED[name], **changes).header())))


def shape_of(metadata: dict[str, Any]) -> Shape:
    return Shape.of(read_header(io.BytesIO(header(metadata))))


def test_the_layout_is_that_of_the_runtime() -> None:
    """The daemon does not import it, so both have the numbers."""
    assert (PAD_CELLS, MICROBATCH, GPU_MICROBATCH) == (UNIT, native.MICROBATCH, native.GPU_MICROBATCH)
    assert batching.SMALLEST_CHUNK == WARM_UP_TOKENS
    for context, parallel in ((8192, 8), (2048, 8), (1024, 8), (512, 1), (4096, 4)):
        first = choose([1] * parallel, parallel, context, is_divisible=True)
        assert first is not None
        assert Layout(context=context, parallel=parallel).first_cells == first.num_cells_in_all


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("Llama 3.2 1B", 0.77),
        ("Llama 3.2 3B", 1.92),
        ("Qwen3 0.6B", 0.38),
        ("Qwen3 8B", 4.77),
        ("Gemma 3 4B", 2.37),
        ("Phi-4-mini", 2.33),
        ("gpt-oss-20b", 12.1),
    ],
)
def test_weights_are_as_large_as_the_published_files(name: str, gigabytes: float) -> None:
    """Of the same quantization; some publish one or two tensors in another."""
    assert shape(name).bytes_weights == pytest.approx(gigabytes * GB, rel=0.05)


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("Llama 3.2 1B", 2 * 2 * 16 * 8 * 64),
        ("Llama 3.2 3B", 2 * 2 * 28 * 8 * 128),
        ("Qwen3 0.6B", 2 * 2 * 28 * 8 * 128),
        ("Gemma 3 4B", 2 * 2 * 34 * 4 * 256),
        ("gpt-oss-20b", 2 * 2 * 24 * 8 * 64),
    ],
)
def test_keys_and_values_take_what_their_heads_are_wide(name: str, bytes_per_token: int) -> None:
    """In 16 bits; in 8 bits 17 bytes for 32 of the 64."""
    assert cell_bytes(shape(name), Layout(), 8192) == 8192 * bytes_per_token
    in_8_bits = Layout(key_kind="Q8_0", value_kind="Q8_0")
    assert cell_bytes(shape(name), in_8_bits, 8192) == 8192 * bytes_per_token * 17 // 32


def test_layers_with_a_window_can_keep_no_more_than_it() -> None:
    """Five of six in Gemma 3: 29 of 34 keep 1024 tokens and a microbatch for each sequence."""
    per_layer = 2 * 2 * 4 * 256
    layout = Layout(context=131072, parallel=1, full_windows=False)
    window = 1280  # 1024 and a microbatch, in steps of 256
    assert cell_bytes(shape("Gemma 3 4B"), layout, 131072) == per_layer * (5 * 131072 + 29 * window)
    assert cell_bytes(shape("gpt-oss-20b"), layout, 131072) == 2048 * (12 * 131072 + 12 * 256)


def test_a_recurrent_state_is_as_large_for_every_length() -> None:
    """One for each slot; layers of attention grow as everywhere."""
    facts: dict[str, Any] = {
        "general.architecture": "jamba",
        "jamba.block_count": 2,
        "jamba.embedding_length": 64,
        "jamba.attention.head_count": 4,
        "jamba.attention.head_count_kv": [0, 2],
        "jamba.ssm.inner_size": 128,
        "jamba.ssm.state_size": 16,
        "jamba.ssm.conv_kernel": 4,
    }
    found, layout = shape_of(facts), Layout()
    state = 4 * (3 * 128 + 16 * 128)
    assert found.layers[0].state_bytes == state
    assert cell_bytes(found, layout, 512) == layout.parallel * state + 512 * 2 * 2 * 2 * 16
    assert cell_bytes(found, layout, 1024) - cell_bytes(found, layout, 512) == 512 * 2 * 2 * 2 * 16


@pytest.mark.parametrize("arch", ["kimi-linear", "bailingmoe3"])
def test_a_state_of_matrices_is_one_for_each_head(arch: str) -> None:
    """Kimi's delta attention: no inner size is written down. Its convolutions look back to queries, keys and
    values."""
    facts: dict[str, Any] = {
        "general.architecture": arch,
        f"{arch}.block_count": 2,
        f"{arch}.embedding_length": 64,
        f"{arch}.attention.head_count": 4,
        f"{arch}.attention.head_count_kv": [0, 1],
        f"{arch}.attention.key_length": 576,
        f"{arch}.attention.key_length_mla": 192,
        f"{arch}.ssm.conv_kernel": 4,
        f"{arch}.kda.head_dim": 32,
    }
    state = 4 * (3 * 3 * 4 * 32 + 32 * 32 * 4)
    assert [layer.state_bytes for layer in shape_of(facts).layers] == [state, 0]
    assert cell_bytes(shape_of(facts), Layout(parallel=2), 256) == 2 * state + 256 * 576 * 2
    del facts[f"{arch}.ssm.conv_kernel"]
    assert shape_of(facts).layers[0].state_bytes == state


def test_layers_that_a_token_goes_through_again_keep_it_again() -> None:
    """Nanbeige's have one set of weights for all rounds. More than llama.cpp has room for would end it."""
    once = Published("nanbeige", 3, 64, 2, 1, 32, 128, vocab=1000, context=512, merges=0, kind="Q8_0")
    facts = once.metadata() | {"nanbeige.num_loops": 2}
    found = Shape.of(read_header(io.BytesIO(header(facts, list(once.tensors())))))
    plain = Shape.of(read_header(io.BytesIO(once.header())))
    assert found.layers == 2 * plain.layers
    assert found.bytes_weights == plain.bytes_weights == sum(found.bytes_by_place)
    assert found.bytes_active == plain.bytes_active + sum(plain.bytes_by_place[1:4])
    here, there = found.divided(4)
    assert (len(here.layers), len(there.layers)) == (4, 2)
    for wrong in (0, 171):
        facts["nanbeige.num_loops"] = wrong
        with pytest.raises(HeaderError, match=f"num_loops is {wrong}; it must be 1 to 170"):
            Shape.of(read_header(io.BytesIO(header(facts, list(once.tensors())))))


def test_latent_attention_keeps_one_vector_for_both() -> None:
    """DeepSeek's: no values of their own."""
    facts: dict[str, Any] = {
        "general.architecture": "deepseek2",
        "deepseek2.block_count": 3,
        "deepseek2.embedding_length": 64,
        "deepseek2.attention.head_count": 4,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
        "deepseek2.attention.key_length_mla": 192,
    }
    assert cell_bytes(shape_of(facts), Layout(), 256) == 256 * 3 * 576 * 2


def test_experts_that_stay_out_cost_memory_and_no_time() -> None:
    """gpt-oss-20b: 4 of 32 for each token."""
    found = shape("gpt-oss-20b")
    assert found.bytes_active < found.bytes_weights / 4


def test_mapped_weights_are_shared() -> None:
    """And the system may drop them; otherwise they are the worker's own."""
    found = shape("Llama 3.2 1B")
    own, mapped = estimate(found, Layout()).at_load, estimate(found, Layout(mmap=True)).at_load
    assert mapped.total == own.total
    assert mapped.shared - own.shared == found.bytes_weights


def test_a_repacked_output_matrix_is_a_second_copy() -> None:
    """Where the embedding is also the output, which is looked up in the file's order."""
    kinds = repacked_kinds(("avx2",))
    found = shape("Llama 3.2 1B")
    assert found.tied is not None
    assert found.tied.kind == "Q6_K", "which AVX2 does not repack"
    assert estimate(found, Layout(repacked=kinds)) == estimate(found, Layout())
    twice = estimate(found, Layout(repacked=frozenset(("Q6_K",)))).at_load.weights
    assert twice - found.bytes_weights == found.tied.num_bytes


def test_of_a_mapped_file_what_is_repacked_is_let_go_of() -> None:
    """All matrices but the embedding, of these kinds; the rest stays in its pages."""
    matrices = {"": 100, "Q4_0": 600, "F16": 50}
    found = replace(shape("Llama 3.2 1B"), matrices=matrices, bytes_weights=750, tied=None)
    layout = Layout(mmap=True, repacked=frozenset(("Q4_0", "Q4_K")))
    parts = estimate(found, layout).at_load
    assert (parts.weights, parts.mapped) == (600, 150)
    assert estimate(found, replace(layout, mmap=False)).at_load.weights == found.bytes_weights


def test_a_file_is_better_mapped_if_most_of_it_is_repacked() -> None:
    """What is used in place is faster in huge pages, which files have none of."""
    found = replace(shape("Llama 3.2 1B"), matrices={"": 100, "Q4_0": 300, "F16": 200}, bytes_weights=600)
    assert not found.is_better_mapped(frozenset(("Q4_0",)))
    assert found.is_better_mapped(frozenset(("Q4_0", "F16")))
    assert not found.is_better_mapped(frozenset())


def test_matrices_are_counted_by_their_kind(tiny_gguf: Path) -> None:
    """Norms have one row, and the embedding is looked up."""
    found = Shape.of(read_model(tiny_gguf))
    embedding = found.num_vocab * 64 // 32 * 34
    norms = 5 * 64 * 4
    assert found.matrices == {"": embedding + norms, "Q8_0": found.bytes_weights - embedding - norms}
    assert found.bytes_mapped(()) == found.bytes_weights


def test_what_is_looked_up_for_each_layer_is_not_multiplied() -> None:
    """Gemma 3n has a second embedding, larger than all its layers."""
    row = ("per_layer_token_embd.weight", (64, 1000), "Q8_0")
    plain = Published("gemma3n", 2, 64, 2, 1, 32, 128, vocab=1000, context=512, merges=0, kind="Q8_0")
    found, without = (
        Shape.of(read_header(io.BytesIO(header(plain.metadata(), [*plain.tensors(), *more]))))
        for more in ((row,), ())
    )
    num_bytes = 1000 * 64 // 32 * 34
    assert found.bytes_weights - without.bytes_weights == num_bytes
    assert found.bytes_active == without.bytes_active
    assert found.matrices[""] - without.matrices[""] == num_bytes


def test_layers_that_guess_ahead_are_not_loaded() -> None:
    """As GLM-4.5-Air has one: they cost nothing, but llama.cpp counts them where it divides layers."""
    whole = Published("glm4moe", 3, 64, 2, 1, 32, 128, vocab=1000, context=512, merges=0, kind="Q8_0")
    facts = whole.metadata() | {"glm4moe.nextn_predict_layers": 1}
    guess = ("blk.2.nextn.eh_proj.weight", (128, 64), "Q8_0")
    found = Shape.of(read_header(io.BytesIO(header(facts, [*whole.tensors(), guess]))))
    trunk = Shape.of(read_header(io.BytesIO(dataclasses.replace(whole, layers=2).header())))
    assert found.layers == (*trunk.layers, Layer())
    assert (found.bytes_weights, found.bytes_active) == (trunk.bytes_weights, trunk.bytes_active)
    assert found.matrices == trunk.matrices
    assert found.bytes_by_place == (*trunk.bytes_by_place[:-1], 0, trunk.bytes_by_place[-1])


def test_a_model_of_nothing_but_layers_that_guess_has_them() -> None:
    """It is no trunk that they are left out of. More than there are would end llama.cpp."""
    whole = Published("glm4moe", 3, 64, 2, 1, 32, 128, vocab=1000, context=512, merges=0, kind="Q8_0")
    facts = whole.metadata() | {"glm4moe.nextn_predict_layers": 3}
    found = Shape.of(read_header(io.BytesIO(header(facts, list(whole.tensors())))))
    assert found == Shape.of(read_header(io.BytesIO(whole.header())))
    facts["glm4moe.nextn_predict_layers"] = 4
    with pytest.raises(HeaderError, match="it has 3 layers, and 4 of them only guess"):
        Shape.of(read_header(io.BytesIO(header(facts, list(whole.tensors())))))


def test_attention_without_flash_needs_room_for_its_scores() -> None:
    """For a microbatch, all heads and the whole context."""
    found = shape("Llama 3.2 1B")
    small = estimate(found, Layout(context=8192, flash_attention=True)).at_most.compute
    large = estimate(found, Layout(context=8192)).at_most.compute
    assert large - small > 128 * 8192 * 32 * 4


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_gpu_holds_is_not_in_the_machine_s_memory(name: str) -> None:
    """With one layer more there, no byte of weights or cells is lost or counted twice, but an embedding that
    is looked up here and multiplied with there."""
    found = shape(name)
    num_layers = len(found.layers)
    plain = estimate(found, Layout()).at_most
    before = plain
    for gpu_layers in range(1, num_layers + 2):
        parts = estimate(found, Layout(gpu_layers=gpu_layers)).at_most
        here, there = found.divided(num_layers + 1 - gpu_layers)
        tied = found.tied.num_bytes if found.tied else 0
        assert here.bytes_weights + there.bytes_weights == found.bytes_weights + tied
        cells = [cell_bytes(part, Layout(), Layout().context) for part in (here, there)]
        assert sum(cells) == cell_bytes(found, Layout(), Layout().context)
        assert parts.weights == here.bytes_weights
        assert parts.device > there.bytes_weights + cells[1]
        assert parts.total <= before.total
        assert parts.device > before.device
        before = parts
    assert estimate(found, Layout(gpu_layers=-1)).at_most == before
    assert estimate(found, Layout(gpu_layers=999)).at_most == before


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_on_a_gpu_leaves_here_what_is_looked_up(name: str) -> None:
    """And what rests of conversations, which is in ordinary memory."""
    found = shape(name)
    at_load = estimate(found, Layout(gpu_layers=-1)).at_load
    assert at_load.weights == found.bytes_by_place[0] < found.bytes_weights
    assert at_load.cells == 0
    at_most = estimate(found, Layout(gpu_layers=-1)).at_most
    assert at_most.cells == cell_bytes(found, Layout(), Layout().context)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"general.architecture": "clip"},
        {"general.architecture": "llama"},
        {"general.architecture": "llama", "llama.block_count": 2**31, "llama.embedding_length": 64},
        {"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 2**31},
        {
            "general.architecture": "llama",
            "llama.block_count": 2,
            "llama.embedding_length": 64,
            "llama.attention.head_count_kv": [1],
        },
    ],
)
def test_a_header_that_describes_no_text_model_is_refused(facts: dict[str, Any]) -> None:
    """Whatever its numbers are."""
    with pytest.raises(HeaderError):
        shape_of(facts)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(flash_attention=True),
        Layout(microbatch=64),
        Layout(key_kind="F32", value_kind="F32"),
        Layout(parallel=2),
    ],
)
def test_llama_cpp_takes_what_was_said(tiny_gguf: Path, layout: Layout) -> None:
    """For cells exactly; for its graph and output nearly, which are small beside weights."""
    found = Shape.of(read_model(tiny_gguf))
    layout = replace(layout, context=2048)
    said = _taken(tiny_gguf, layout)
    assert said["KV buffer"] == pytest.approx(cell_bytes(found, layout, 2048), abs=2**14)
    taken = said["output buffer"] + said["compute buffer"]
    assert estimate(found, layout).at_most.compute == pytest.approx(taken, rel=0.4)


def _taken(path: Path, layout: Layout) -> dict[str, float]:
    """Bytes by name, as llama.cpp logs them."""
    lib = import_llama()
    lines: list[str] = []
    callback = lib.llama_log_callback(lambda _level, line, _data: lines.append(line.decode()))
    lib.llama_log_set(callback, None)
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = layout.context, 512, layout.microbatch
    params.n_seq_max = params.n_outputs_max = layout.parallel
    params.kv_unified = True
    on, off = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED, lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.flash_attn_type = on if layout.flash_attention else off
    kinds = {"F32": lib.GGML_TYPE_F32, "F16": lib.GGML_TYPE_F16}
    params.type_k, params.type_v = kinds[layout.key_kind], kinds[layout.value_kind]
    lib.llama_free(lib.llama_init_from_model(model, params))
    lib.llama_model_free(model)
    lib.llama_log_set(ctypes.cast(None, lib.llama_log_callback), None)
    found = re.findall(r"(\w+ buffer) size\s*=\s*([\d.]+) MiB", "".join(lines))
    return {name: float(mebibytes) * 2**20 for name, mebibytes in found}


def test_the_processor_s_features_are_known() -> None:
    """On every machine that these tests run on."""
    assert features()
