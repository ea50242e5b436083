"""What models in folders cost."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pilotlight.core import Loading, Model
from pilotlight.registry.costs import Costs
from pilotlight.registry.folders import CONTEXT, MOST_JSON_BYTES, FolderShape, estimate_folder
from pilotlight.registry.ladder import Ladder
from pilotlight.registry.reader import HeaderError
from pilotlight.registry.subjects import subject
from pilotlight.runtimes.mlx.checkpoint import LONGEST, Checkpoint
from pilotlight.worker.handle import Worker
from pilotlight.worker.size import size_of

BUILTIN = Path(str(resources.files("pilotlight"))) / "builtin"

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


def folder(path: Path, **changes: Any) -> Path:
    """An MLX folder with a thousand bytes of weights."""
    (path / "config.json").write_text(json.dumps(CONFIG | changes))
    (path / "model.safetensors").write_bytes(bytes(1000))
    return path


@pytest.mark.parametrize(
    ("changes", "bytes_per_token"),
    [
        ({}, 4 * 2 * 2 * 32 * 2),
        ({"head_dim": 64}, 4 * 2 * 2 * 64 * 2),
        ({"torch_dtype": "float32"}, 4 * 2 * 2 * 32 * 4),
        ({"quantization": {"bits": 4, "group_size": 64}}, 4 * 2 * 2 * 32 * 4),
        ({"num_key_value_heads": None}, 4 * 2 * 8 * 32 * 2),
        ({"num_key_value_heads": [1, 2, 2, 1]}, 4 * 2 * 2 * 32 * 2),
    ],
)
def test_a_token_takes_keys_and_values(tmp_path: Path, changes: dict[str, Any], bytes_per_token: int) -> None:
    """In the type that is computed in."""
    shape = FolderShape.of(folder(tmp_path, **changes), "mlx")
    assert shape.values_per_token * shape.bytes_per_value == bytes_per_token
    assert shape.bytes_weights == 1000


OTHER_NAMES: dict[str, tuple[dict[str, Any], int]] = {
    "gpt2": ({"n_layer": 4, "n_embd": 256, "n_head": 8}, 8),
    "gpt_bigcode": ({"n_layer": 4, "n_embd": 256, "n_head": 8, "multi_query": True}, 1),
    "olmo": ({"n_layers": 4, "d_model": 256, "n_heads": 8}, 8),
    "dbrx": ({"n_layers": 4, "d_model": 256, "n_heads": 8, "attn_config": {"kv_n_heads": 2}}, 2),
    "exaone": ({"num_layers": 4, "hidden_size": 256, "num_attention_heads": 8}, 8),
    "openelm": (
        {
            "num_transformer_layers": 4,
            "model_dim": 256,
            "head_dim": 32,
            "num_query_heads": [4, 8, 8, 8],
            "num_kv_heads": [1, 2, 2, 2],
        },
        2,
    ),
}
"""The same sizes, as other architectures call them; and the heads of keys and values."""


@pytest.mark.parametrize("kind", OTHER_NAMES)
def test_sizes_are_known_by_other_names(tmp_path: Path, kind: str) -> None:
    """Or a conversation would cost nothing."""
    sizes, num_kv_heads = OTHER_NAMES[kind]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 1000} | sizes))
    shape = FolderShape.of(tmp_path, "mlx")
    assert (shape.values_per_token, shape.width) == (4 * 2 * num_kv_heads * 32, 256)


LATENT_SIZES = {
    "num_key_value_heads": 8,
    "kv_lora_rank": 128,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 48,
    "v_head_dim": 40,
}

KEPT: dict[str, tuple[dict[str, Any], int]] = {
    "deepseek_v3": (LATENT_SIZES, 4 * (128 + 16)),
    "mistral4": (LATENT_SIZES, 4 * (128 + 16)),
    "kimi_k2": ({}, 4 * (512 + 64)),
    "deepseek_v2": (LATENT_SIZES, 4 * 8 * (48 + 16 + 40)),
    "youtu_llm": ({}, 4 * 8 * (128 + 64 + 128)),
    "minicpm3": (LATENT_SIZES, 4 * 8 * (48 + 16 + 32)),
    "llama": (LATENT_SIZES, 4 * 2 * 8 * 32),
    "step3p5": ({"num_key_value_heads": None, "num_attention_groups": 2, "head_dim": 64}, 4 * 2 * 2 * 64),
    "iquestloopcoder": ({}, 2 * 4 * 2 * 2 * 32),
    "nanbeige": ({"num_loops": 3}, 3 * 4 * 2 * 2 * 32),
}
"""What a token takes where layers keep something else, or more than once."""


@pytest.mark.parametrize("kind", KEPT)
def test_what_a_kind_keeps_is_charged(tmp_path: Path, kind: str) -> None:
    """As mlx-lm's module keeps it."""
    sizes, num_values = KEPT[kind]
    shape = FolderShape.of(folder(tmp_path, model_type=kind, **sizes), "mlx")
    assert shape.values_per_token == num_values


@pytest.mark.parametrize(("kind", "num_values"), [("deepseek_v3", 8 * (512 + 48 + 40)), ("deepseek_v2", 0)])
def test_what_is_made_of_latents_is_charged(tmp_path: Path, kind: str, num_values: int) -> None:
    """Keys, values and scores of all heads, of one layer and the whole context, while a prompt is read."""
    shape = FolderShape.of(folder(tmp_path, model_type=kind, **LATENT_SIZES), "mlx")
    long, short = (estimate_folder(shape, context=size, parallel=1) for size in (2048, 1024))
    made = long.at_most.compute - short.at_most.compute
    assert made == 1024 * num_values * shape.bytes_per_value


def test_loops_with_weights_are_one_fewer_than_there_are(tmp_path: Path) -> None:
    """The last one has none; whatever else is said of their number."""
    loops = {"num_loops": 2, "loop_loss_weights": [0.1, 0.2, 0.3]}
    shape = FolderShape.of(folder(tmp_path, model_type="nanbeige", **loops), "mlx")
    assert shape.values_per_token == 4 * 4 * 2 * 2 * 32


def test_of_sizes_that_each_layer_has_for_itself_the_largest_counts(tmp_path: Path) -> None:
    """As Gemma 3n's layers have."""
    path = folder(tmp_path, text_config=CONFIG | {"intermediate_size": [512, 1024, 512, 512]})
    assert FolderShape.of(path, "mlx").feed_forward == 1024


def test_rows_take_memory_when_they_are_written(tmp_path: Path) -> None:
    """None at the load, and as much as all rows and what is parked at most."""
    shape = FolderShape.of(folder(tmp_path), "mlx")
    found = estimate_folder(shape, context=2048, parallel=3)
    bytes_per_token = 4 * 2 * 2 * 32 * 2
    assert (found.at_load.cells, found.at_most.cells) == (0, (4 * 2048 + 1024) * bytes_per_token)


@pytest.mark.parametrize(("parallel", "num_rows"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8)])
def test_mlx_makes_rows_by_doubling(tmp_path: Path, parallel: int, num_rows: int) -> None:
    """As its `Cells` do."""
    shape = FolderShape.of(folder(tmp_path), "mlx")
    cells = estimate_folder(shape, context=2048, parallel=parallel).at_most.cells
    assert cells == (num_rows * 2048 + 1024) * shape.values_per_token * shape.bytes_per_value


def test_quantized_rows_take_less(tmp_path: Path) -> None:
    """In 8 bits, and two numbers of 16 for each group of 32."""
    shape = FolderShape.of(folder(tmp_path), "mlx")
    plain, in_8_bits = (
        estimate_folder(shape, context=2048, parallel=3, kv_bits=bits).at_most.cells for bits in (None, 8)
    )
    assert in_8_bits == plain * (8 + 2 * 16 / 32) / 16


@pytest.mark.parametrize("kind", ["q8_0", "q8_0/q8_0"])
def test_both_words_for_one_type_cost_the_same(tmp_path: Path, kind: str) -> None:
    """For `fit`, too."""
    path = folder(tmp_path)
    model = Model("m", path, runtime="mlx", context=2048, parallel=3, loading=Loading(kind))
    shape = FolderShape.of(path, "mlx")
    at_most = estimate_folder(shape, context=2048, parallel=3, kv_bits=8).at_most.total
    assert Costs(tmp_path / "state", Ladder(tmp_path)).estimate(model).at_most.total == at_most
    assert subject(model, "full").at(2048).at_most.total == at_most


def test_the_context_it_was_trained_for_is_found_where_its_worker_finds_it(tmp_path: Path) -> None:
    """The daemon does not import it, so both say where."""
    assert CONTEXT["mlx"] == LONGEST
    for key in LONGEST:
        path = folder(tmp_path, **{"max_position_embeddings": None, key: 512})
        assert FolderShape.of(path, "mlx").context_trained == Checkpoint.read(path).context_trained == 512


@pytest.mark.parametrize(("trained", "expected"), [(2048, 2048), (None, 32768)])
def test_a_context_counts_as_its_worker_takes_it(tmp_path: Path, trained: int | None, expected: int) -> None:
    """No more than it was trained for, and all of it where that is not known; `fit` says the same."""
    path = folder(tmp_path, max_position_embeddings=trained)
    shape, model = FolderShape.of(path, "mlx"), Model("m", path, runtime="mlx", context=32768)
    at_most = estimate_folder(shape, context=expected, parallel=8).at_most.total
    assert Costs(tmp_path / "state", Ladder(tmp_path)).estimate(model).at_most.total == at_most
    assert subject(model, "full").at(32768).at_most.total == at_most


def test_all_weights_outside_a_graph_are_charged(tmp_path: Path) -> None:
    """By whatever name, and however many files they are."""
    decoder = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"decoder": decoder}}))
    for name in ("model.onnx", "weights.data", "model.onnx_data", "model.onnx_data_1", "tokenizer.json"):
        (tmp_path / name).write_bytes(bytes(1000))
    assert FolderShape.of(tmp_path, "onnx").bytes_weights == 4000


@pytest.mark.parametrize("config", ["", "[]", "{", "[" * 100_000, '{"hidden_size": "wide"}', '{"model": 1}'])
def test_a_folder_that_describes_nothing_is_refused(tmp_path: Path, config: str) -> None:
    """Whatever its JSON is."""
    for name, runtime in (("config.json", "mlx"), ("genai_config.json", "onnx")):
        (tmp_path / name).write_text(config)
        if config != '{"model": 1}' or runtime == "onnx":
            with pytest.raises(HeaderError):
                FolderShape.of(tmp_path, runtime)


def test_a_giant_configuration_is_refused(tmp_path: Path) -> None:
    """Unread."""
    (tmp_path / "config.json").write_bytes(b" " * (MOST_JSON_BYTES + 1))
    with pytest.raises(HeaderError, match="more than"):
        FolderShape.of(tmp_path, "mlx")


@pytest.mark.parametrize("number", [-1, 2**31, 1.5, True, [], [4, -1], [4, None]])
def test_numbers_that_no_model_has_are_refused(tmp_path: Path, number: Any) -> None:
    """Whatever they would have been multiplied with."""
    with pytest.raises(HeaderError, match="num_hidden_layers is"):
        FolderShape.of(folder(tmp_path, num_hidden_layers=number), "mlx")


async def test_the_built_in_folder_costs_about_what_is_estimated(tmp_path: Path) -> None:
    """Though nobody measured this machine."""
    model = Model("pilot-onnx", BUILTIN / "pilot-onnx", runtime="onnx")
    estimated = Costs(tmp_path, Ladder(tmp_path)).estimate(model)
    worker = await Worker.spawn(model)
    try:
        await worker.load("full", lambda _: None, 20)
        size = size_of(worker.pid)
    finally:
        await worker.stop()
    assert size is not None
    assert size.total == pytest.approx(estimated.at_load.total, rel=0.3)
