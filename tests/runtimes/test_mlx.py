"""The MLX runtime: what mlx-lm itself says, and folders that are models and that are none.

Those whose files native code reads are loaded in real workers, because it may die of them.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speaking import BUILTIN, Bench, builtin, generate

from mlx_factory import SMALL, write_random
from pilotlight.core import Loading, Model, Prompt
from pilotlight.registry.folders import FolderShape
from pilotlight.runtimes.base import LoadError, MissingLibraryError
from pilotlight.runtimes.mlx.architecture import SAME_AS
from pilotlight.runtimes.mlx.cells import STEP
from pilotlight.runtimes.mlx.checkpoint import Checkpoint
from pilotlight.runtimes.mlx.runtime import load_network
from pilotlight.worker.handle import LoadRefusedError, Worker

MODEL = BUILTIN / "pilot-mlx"

LOAD_S = 30.0

LONG = [5, 6, 7, 8] * 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def loaded() -> Bench:
    """Once for all tests."""
    return builtin("mlx")


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """As if freshly loaded."""
    loaded.forget()
    return loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, to be changed."""
    return Path(shutil.copytree(MODEL, tmp_path / "bad"))


def configure(**changes: object) -> Callable[[Path], None]:
    """Change the model's description; None takes a field away."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        kept = {name: value for name, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def test_a_loaded_model_says_what_computes_it(bench: Bench) -> None:
    """Library, version and device."""
    info = bench.info
    assert (info.runtime, info.description) == ("mlx", "llama on CPU")
    assert info.version == bench.runtime._decoder.version
    assert not info.capabilities.live_threads
    assert info.bytes_model == (MODEL / "model.safetensors").stat().st_size


def test_memory_is_given_back_when_nothing_runs() -> None:
    """What is parked is all that stays of a conversation, and no more than it needs."""
    # MLX counts for the whole process, and tests before this one leave much behind.
    with get_context("spawn").Pool(1) as alone:
        held = alone.apply(talk_and_count)
    state = held.num_tokens * 4 * 2 * 2 * 64 * 4  # Layers, keys and values, heads, features, bytes.
    spare = STEP * 4 * 2 * 2 * 64 * 4  # The row of the last one grows by steps.
    assert state <= held.num_bytes <= state + spare + 2**16 * held.num_parked
    assert held.num_bytes_cached == 0


@dataclass
class Held:
    """After some conversations: what is parked, and the memory that MLX counts."""

    num_tokens: int
    num_parked: int
    num_bytes: int
    num_bytes_cached: int


def talk_and_count() -> Held:
    """In a process of its own."""
    import mlx.core as mx

    bench = builtin("mlx")
    # Positions of the last step stay: from here on, of one row.
    bench.answer(generate(LONG, cache_prompt=False))
    before = mx.get_active_memory()
    for token in range(5, 9):
        bench.start(generate([token, *LONG], max_tokens=20, ignore_eos=True))
    bench.finish()
    bench.runtime.rest()
    return Held(
        num_tokens=bench.runtime._memory._parking.num_tokens + bench.runtime.state().cells_used,
        num_parked=bench.runtime.state().cached,
        num_bytes=mx.get_active_memory() - before,
        num_bytes_cached=mx.get_cache_memory(),
    )


def test_keys_and_values_can_be_quantized() -> None:
    """Rows side by side, a parked one and a copied one, in 10 of 32 bits: 8, and 32 twice for 32 values."""
    plain, quantized = (Bench("mlx", MODEL, loading=Loading(kind)) for kind in ("auto", "q8_0"))
    assert [bench_bytes(bench) for bench in (quantized, plain)] == [
        20 * 4 * 2 * 128 * 5 // 4,
        20 * 4 * 2 * 128 * 4,
    ]
    asked = ("What can you do?", "one two three four five", "x y z")
    alone = [quantized.answer(generate(one, max_tokens=8, cache_prompt=False)).text for one in asked]
    together = quantized.answers(generate(one, max_tokens=8) for one in asked)
    assert [speech.text for speech in together] == alone
    quantized.answer(generate([5] * 300))
    again = quantized.answer(generate(asked[1], max_tokens=8))
    assert (again.text, again.end.cached_tokens > 0) == (alone[1], True)


def bench_bytes(bench: Bench) -> int:
    """Of twenty tokens."""
    bench.answer(generate([5] * 20, max_tokens=1))
    saved = bench.runtime._decoder.save(0, 20)
    return sum(array.nbytes for layer in saved for array in layer)


@pytest.mark.parametrize(
    ("config", "kind", "reason"),
    [
        ({}, "q8_0", "cannot be computed with keys and values of 8 bits: "),
        (
            {"head_dim": 32},
            "q8_0/q4_0",
            "kv_cache_type q8_0/q4_0: mlx keeps keys and values in the same type",
        ),
    ],
)
def test_what_cannot_be_quantized_is_told(
    tmp_path: Path, config: dict[str, object], kind: str, reason: str
) -> None:
    """Heads of 16 values are no whole groups of 32."""
    with pytest.raises(LoadError, match=reason):
        Bench("mlx", write_random(tmp_path, **config), loading=Loading(kind))


def test_loading_takes_neither_transformers_nor_a_compiler() -> None:
    """Seconds and hundreds of megabytes, and a program that few machines have."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from speaking import *;"
        "builtin('mlx').answer(generate('hi')); assert not {'transformers', 'torch'} & sys.modules.keys()"
    )
    found = Path(__file__).parent
    empty = {"PATH": "", "TMPDIR": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", program, found], env=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- beside the library's own generator ---


@pytest.fixture(scope="session")
def library() -> Any:
    """mlx-lm's loading, with all that it imports."""
    from mlx_lm import utils

    return utils


def test_the_ends_are_the_library_s_own(library: Any, bench: Bench) -> None:
    """Every token that ends a turn."""
    ends = library.load_config(MODEL)["eos_token_id"]
    tokenizer = library.load_tokenizer(MODEL, eos_token_ids=ends)
    assert bench.runtime._vocabulary.end_tokens == tokenizer.eos_token_ids


def test_the_ends_are_those_of_all_files(folder: Path) -> None:
    """What the first says counts; of the others, not what is ordinary text."""
    (folder / "generation_config.json").write_text('{"eos_token_id": 2043}')
    configure(eos_token_id=[2042, 5], text_config={"eos_token_id": 2046})(folder)
    checkpoint = Checkpoint.read(folder)
    assert (checkpoint.end_tokens, checkpoint.other_ends) == ((2043,), (2042, 5, 2046))
    configure(text_config=None)(folder)
    assert Bench("mlx", folder).runtime._vocabulary.end_tokens == {2041, 2042, 2043}


TEXTS = [
    "<|im_start|>user\nWhat can you do?<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>It's  é, 😀 and\n\n 12345",
    "<think>\n hm</think> <tool_call>{}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_library_s_own_tokens(library: Any, bench: Bench, text: str) -> None:
    """Special tokens, begin of text and all."""
    assert bench.tokenize(text, add_special=True) == library.load_tokenizer(MODEL).encode(text)


def test_greedy_text_is_the_library_s_own(library: Any, bench: Bench) -> None:
    """Token for token."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    question = Prompt(messages=({"role": "user", "content": "What can you do?"},))
    model, _ = library.load_model(MODEL)
    prompt = mx.array(bench.tokenize(TEXTS[0], add_special=True))
    answer = []
    for token, _ in generate_step(prompt, model, max_tokens=150):
        if token in bench.runtime._vocabulary.end_tokens:
            break
        answer.append(token)
    pieces = b"".join(map(bench.runtime._vocabulary.piece, answer))
    assert bench.answer(generate(question, max_tokens=150)).text == pieces.decode()


def test_kinds_have_the_library_s_own_modules(library: Any) -> None:
    """The table that is in a module too heavy to import."""
    assert library.MODEL_REMAPPING == SAME_AS


# --- other architectures, of random weights ---

GEMMA_3N = {
    "model_type": "gemma3n",
    "text_config": SMALL
    | {
        "model_type": "gemma3n_text",
        "intermediate_size": [64, 48, 64, 64],
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 16,
        "rope_local_base_freq": 10000.0,
        "final_logit_softcapping": 30.0,
        "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0],
        "vocab_size_per_layer_input": 2000,
        "hidden_size_per_layer_input": 8,
        "altup_num_inputs": 2,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": 4,
    },
}
"""Its last layers look at the keys and values of others."""

AFM_7 = {
    "model_type": "afm7",
    "hidden_dim": 32,
    "num_layers": 4,
    "num_kv_reuse_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 1,
}
"""They do here, too, and take the number of keys for the position of every row."""


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen3"},
        {"model_type": "gemma3_text", "sliding_window": 16, "sliding_window_pattern": 2},
        {"model_type": "mistral", "sliding_window": 16},
        GEMMA_3N,
        AFM_7,
    ],
    ids=lambda config: config["model_type"],
)
def test_rows_are_computed_as_the_library_computes_one(
    library: Any, tmp_path: Path, config: dict[str, Any]
) -> None:
    """Beyond the window of layers that have one, too; side by side where the library can."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    write_random(tmp_path, **config)
    network = load_network(Checkpoint.read(tmp_path), lambda _: None)
    network.open(num_rows=2, context=64)
    assert network._is_one_by_one is (config is AFM_7)
    model, _ = library.load_model(tmp_path)
    prompts = [[token % 60 for token in range(start, start + length)] for start, length in ((3, 50), (9, 7))]
    for row, prompt in enumerate(prompts):
        network.read(row, prompt[:5], 0)
        network.read(row, prompt[5:-1], 5)
    rows = network.compute(0, [prompt[-1:] for prompt in prompts], [len(prompt) - 1 for prompt in prompts])
    for prompt, row in zip(prompts, rows, strict=True):
        alone = model(mx.array([prompt]), cache=make_prompt_cache(model))[0, -1]
        np.testing.assert_allclose(row, np.array(alone), atol=1e-4)


@pytest.mark.parametrize(
    ("num_heads", "kind", "is_one_by_one"),
    [(1, "gemma2", True), (2, "gemma2", True), (2, "qwen3", False)],
)
def test_rows_that_cannot_be_computed_together_are_computed_one_by_one(
    tmp_path: Path, num_heads: int, kind: str, is_one_by_one: bool
) -> None:
    """gemma2 fails for two rows, or takes one's mask for a head's if it has two of these."""
    write_random(tmp_path, model_type=kind, num_attention_heads=4, num_key_value_heads=num_heads)
    network = load_network(Checkpoint.read(tmp_path), lambda _: None)
    network.open(num_rows=2, context=64)
    assert network._is_one_by_one is is_one_by_one
    prompts = [list(range(3, 33)), list(range(9, 14))]
    alone = [network.compute(row, [prompt], [0])[0] for row, prompt in enumerate(prompts)]
    together = network.compute(0, [prompt[-1:] for prompt in prompts], [29, 4])
    np.testing.assert_allclose(together, alone, atol=1e-4)


LATENT: dict[str, Any] = {
    "head_dim": None,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 24,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
}

YARN = {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "mscale_all_dim": 1.0}

LONG_ROPE = {"short_factor": [1.0] * 4, "long_factor": [1.0] * 4, "original_max_position_embeddings": 64}

KINDS: dict[str, dict[str, Any]] = {
    "deepseek_v3": LATENT,
    "glm4_moe_lite": LATENT | {"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": LATENT | {"rope_scaling": YARN},
    "youtu_llm": LATENT,
    "minicpm3": LATENT | {"dim_model_base": 32, "scale_depth": 1, "scale_emb": 1, "rope_scaling": LONG_ROPE},
    "step3p5": {"num_key_value_heads": None, "num_attention_groups": 1, "moe_num_experts": 4, "moe_top_k": 2},
    "iquestloopcoder": {},
    "nanbeige": {"num_loops": 3},
}
"""Whose layers keep something else than keys and values of each head, by other names, or more than once."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_takes_what_the_daemon_charges_for_it(tmp_path: Path, kind: str) -> None:
    """Which imports no library to find out."""
    write_random(tmp_path, model_type=kind, **KINDS[kind])
    network = load_network(Checkpoint.read(tmp_path), lambda _: None)
    kept = sum(heads * features for layer in network._forms for heads, features, _ in layer)
    assert kept == FolderShape.of(tmp_path, "mlx").values_per_token


def test_state_that_cannot_be_cut_is_refused(library: Any, tmp_path: Path) -> None:
    """By what it keeps."""
    write_random(
        tmp_path,
        model_type="mamba",
        state_size=8,
        conv_kernel=4,
        use_bias=False,
        use_conv_bias=True,
        time_step_rank=4,
    )
    with pytest.raises(LoadError, match="models of kind mamba are not supported: they keep a ArraysCache"):
        load_network(Checkpoint.read(tmp_path), lambda _: None)


# --- folders ---


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Replace the contents of one file."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def index(name: str) -> Callable[[Path], None]:
    """An index that says that all weights are in one file."""
    text = json.dumps({"weight_map": {"model.norm.weight": name}})
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text) and None


UNREADABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (remove("config.json"), "has no config.json"),
    "no JSON": (write("config.json", lambda raw: raw[:40]), "config.json cannot be read"),
    "no kind": (configure(model_type=None), "'model_type' is missing"),
    "a kind elsewhere": (configure(model_type="..os"), "model_type '..os' is no architecture"),
    "code": (configure(model_file="evil.py"), "names code to run, 'evil.py': none is run"),
    "another quantization": (
        configure(quantization=None, quantization_config={"quant_method": "awq"}),
        "quantized by awq, not by MLX",
    ),
    "no weights": (remove("model.safetensors"), "has no model*.safetensors"),
    "weights elsewhere": (index("../model.safetensors"), "'../model.safetensors' is no file name"),
    "a shard missing": (index("model-2.safetensors"), "has no model-2.safetensors"),
    "no shards": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{}") and None,
        "names no files",
    ),
}

BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (shutil.rmtree, "does not exist"),
    "no such kind": (configure(model_type="nobody"), "mlx-lm has no models of kind nobody"),
    "no model": (configure(model_type="cache"), "mlx-lm has no models of kind cache"),
    "no size": (configure(hidden_size=None), "describes no llama"),
    "another size": (configure(hidden_size=128), "do not fit config.json"),
    "endless layers": (configure(num_hidden_layers=-1), "describes no llama"),
    "more layers than there are": (configure(num_hidden_layers=5), "do not fit config.json"),
    "fewer layers than there are": (configure(num_hidden_layers=3), "do not fit config.json"),
    "empty weights": (write("model.safetensors", lambda raw: b""), "model.safetensors cannot be read"),
    "half of the weights": (
        write("model.safetensors", lambda raw: raw[: 10**6]),
        "model.safetensors cannot be read",
    ),
    "noise": (write("model.safetensors", lambda raw: bytes(range(256)) * 40), "cannot be read"),
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer.json"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_can_be_seen_in_its_files_is_refused_before_native_code_sees_them(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is not even asked for."""
    damage, reason = UNREADABLE[name]
    damage(folder)
    monkeypatch.delitem(sys.modules, "pilotlight.runtimes.mlx.network", raising=False)
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(LoadError, match=re.escape(reason)):
        Bench("mlx", folder)


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_folder_is_refused(folder: Path, name: str) -> None:
    """With a reason that names it."""
    damage, reason = BAD[name]
    damage(folder)
    with pytest.raises(LoadRefusedError) as caught:
        await load(folder)
    assert reason in str(caught.value)


async def load(path: Path) -> None:
    worker = await Worker.spawn(Model("bad", path, runtime="mlx", context=256, parallel=2, threads=1))
    try:
        await worker.load("full", lambda _: None, LOAD_S)
    finally:
        await worker.stop()


def test_weights_may_be_in_several_files(folder: Path) -> None:
    """Those that the index names, and no others."""
    import mlx.core as mx

    weights = mx.load(str(folder / "model.safetensors"))
    names = sorted(weights)
    shards = {"model-1.safetensors": names[:30], "model-2.safetensors": names[30:]}
    for file, held in shards.items():
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in held})
    (folder / "model.safetensors").write_bytes(b"not this one")
    weight_map = {name: file for file, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    bench = Bench("mlx", folder)
    assert bench.answer(generate(Prompt(messages=({"role": "user", "content": "Hello!"},)))).text


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it."""
    monkeypatch.delitem(sys.modules, "pilotlight.runtimes.mlx.network", raising=False)
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'pilotlight\[mlx\]'"):
        load_network(Checkpoint.read(MODEL), lambda _: None)


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nobody has installed mlx-lm; what imports it is imported anew."""
    real = metadata.version

    def version(name: str) -> str:
        if name == "mlx-lm":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    for name in ("network", "architecture"):
        monkeypatch.delitem(sys.modules, f"pilotlight.runtimes.mlx.{name}", raising=False)
    return monkeypatch


def test_it_is_mlx_lm_that_is_missing(uninstalled: pytest.MonkeyPatch) -> None:
    """Not mlx, which is there."""
    uninstalled.setattr("importlib.util.find_spec", lambda _: None)
    uninstalled.delitem(sys.modules, "mlx_lm", raising=False)
    with pytest.raises(MissingLibraryError, match=r"mlx_lm is not installed; pip install .*mlx"):
        load_network(Checkpoint.read(MODEL), lambda _: None)


def test_a_checkout_of_mlx_lm_is_known_by_what_is_in_it(
    uninstalled: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No version tells two of them apart, and what one has computed is not for another."""
    network = load_network(Checkpoint.read(MODEL), lambda _: None)
    assert "mlx-lm of unknown version" in network.version
    assert load_network(Checkpoint.read(MODEL), lambda _: None).version == network.version
    (package,) = sys.modules["mlx_lm"].__path__
    changed = Path(shutil.copytree(Path(package, "models"), tmp_path / "models")).parent
    with (changed / "models" / "llama.py").open("a") as file:
        file.write("# changed\n")
    uninstalled.setattr(sys.modules["mlx_lm"], "__path__", [str(changed)])
    assert load_network(Checkpoint.read(MODEL), lambda _: None).version != network.version
