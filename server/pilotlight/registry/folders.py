"""What a worker with a model folder (ONNX Runtime GenAI, MLX) will hold: weights, and a row per sequence.

Coarser than `cost`: what libraries do with weights is theirs to say, so this is what they can come to, not
what they will. Reads the folder's JSON and the sizes of its files; the constants are measured.
"""

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from pilotlight.registry.cost import LATER_BYTES, Estimate, Parts
from pilotlight.registry.formats import MARKS
from pilotlight.registry.reader import HeaderError
from pilotlight.registry.stores.weights import ONNX
from pilotlight.runtimes.kv_types import BITS, KV_GROUP, KvTypes

MOST_JSON_BYTES = 16 * 2**20

LARGEST_RUN = 512
"""Tokens of one run; as in `runtimes.onnx` and `runtimes.mlx`, which the daemon does not import."""

PROCESS_BYTES = {"onnx": 33 * 10**6, "mlx": 31 * 10**6}
LIBRARY_BYTES = {"onnx": 47 * 10**6, "mlx": 34 * 10**6}

TOKENIZER_FACTOR = 8
"""Bytes that a tokenizer takes for each of its file."""

CONTEXT = {
    "onnx": ("context_length",),
    "mlx": ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx"),
}
"""Where it says for how many tokens it was trained; the first that is there counts. As in `runtimes.mlx`,
which the daemon does not import: a test holds them together."""

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")
WIDTH = ("hidden_size", "n_embd", "d_model", "model_dim", "hidden_dim")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_query_heads")
KV_HEADS = ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "kv_n_heads", "num_attention_groups")
FEED_FORWARD = ("intermediate_size", "n_inner", "mlp_hidden_size")
"""What mlx-lm's architectures call their sizes; the first that is there counts."""

LATENT = ("deepseek_v3", "kimi_k2", "joyai_llm_flash", "glm4_moe_lite", "mistral4")
"""Kinds of which mlx-lm keeps what keys and values of all heads are made of."""

UNFOLDED = ("deepseek_v2", "youtu_llm", "minicpm3")
"""Kinds of which it keeps what is made of that: keys have a part with a position and one without."""

WEIGHTS = {"onnx": ONNX, "mlx": ("model*.safetensors",)}


class FolderShape(Struct, frozen=True):
    """The sizes of a folder's model that decide what it costs."""

    runtime: str
    bytes_weights: int
    bytes_tokenizer: int
    values_per_token: int
    """Of keys and values."""
    bytes_per_value: int
    width: int
    feed_forward: int
    num_vocab: int
    context_trained: int
    """0: it does not say."""
    values_per_seen: int = 0
    """That one layer makes of a token that is kept, while a piece of a prompt looks at it."""

    @classmethod
    def of(cls, folder: Path, runtime: str) -> "FolderShape":
        """Raises `HeaderError` for a folder that describes no model, and `OSError`."""
        config = _read(folder / MARKS[runtime])
        model = config.get("model") if runtime == "onnx" else config.get("text_config", config)
        inner = model.get("decoder") if runtime == "onnx" and isinstance(model, dict) else model
        if not isinstance(model, dict) or not isinstance(inner, dict):
            raise HeaderError(f"{folder} describes no text generation model")
        attention = model.get("attn_config")
        facts = _Facts(folder, {**(attention if isinstance(attention, dict) else {}), **model, **inner})
        width = facts.number(*WIDTH, default=1)
        return cls(
            runtime=runtime,
            bytes_weights=sum(file.stat().st_size for name in WEIGHTS[runtime] for file in folder.glob(name)),
            bytes_tokenizer=_size(folder / "tokenizer.json"),
            values_per_token=_num_loops(facts) * facts.number(*LAYERS, default=1) * _pair(facts),
            bytes_per_value=_width_of(runtime, config),
            width=width,
            feed_forward=facts.number(*FEED_FORWARD, default=4 * width),
            num_vocab=facts.number("vocab_size", default=0),
            context_trained=next(filter(None, (facts.number(key, default=0) for key in CONTEXT[runtime])), 0),
            values_per_seen=_seen(facts),
        )


def estimate_folder(
    shape: FolderShape, *, context: int, parallel: int, kv_bits: int | None = None
) -> Estimate:
    """Rows take memory as they are written: none at the load. At most, they hold the context, or what it was
    trained for if that is less, and half as much is parked; MLX makes rows by doubling,
    each as long as the longest."""
    context = min(context, shape.context_trained or context)
    longest_rows = 1 << (parallel - 1).bit_length() if shape.runtime == "mlx" else 1
    rows = int(
        shape.values_per_token * _value_bytes(shape, kv_bits) * (context * longest_rows + context // 2)
    )
    run = 4 * LARGEST_RUN * (4 * shape.feed_forward + 8 * shape.width) + 4 * shape.num_vocab * parallel
    run += int(shape.values_per_seen * shape.bytes_per_value * context)
    return Estimate(_parts(shape), _parts(shape, cells=rows, compute=run, later=LATER_BYTES))


def bits_of(kv_cache_type: str) -> int | None:
    """Of each key and value; None as they are computed."""
    kv = KvTypes.parse(kv_cache_type)
    return None if kv is None else BITS.get(kv.keys)


def _value_bytes(shape: FolderShape, kv_bits: int | None) -> float:
    """With its part of the scale and offset that a group has, if it is quantized."""
    if kv_bits is None:
        return shape.bytes_per_value
    return kv_bits / 8 + 2 * shape.bytes_per_value / KV_GROUP


def _parts(shape: FolderShape, *, cells: int = 0, compute: int = 0, later: int = 0) -> Parts:
    tokenizer = TOKENIZER_FACTOR * shape.bytes_tokenizer
    return Parts(
        weights=shape.bytes_weights,
        mapped=0,
        cells=cells,
        compute=compute,
        process=PROCESS_BYTES[shape.runtime] + tokenizer + later,
        libraries=LIBRARY_BYTES[shape.runtime],
    )


def _seen(facts: "_Facts") -> int:
    """Of what is kept as latents mlx-lm makes keys and values of all heads, and scores (deepseek_v3.py)."""
    if facts.kind not in LATENT:
        return 0
    made = facts.number("qk_nope_head_dim", default=128) + facts.number("v_head_dim", default=128)
    return facts.number(*HEADS, default=1) * (LARGEST_RUN + made)


def _pair(facts: "_Facts") -> int:
    """Values that one layer keeps of a token; where nobody says, sizes are what mlx-lm takes them for."""
    heads = facts.number(*HEADS, default=1)
    part = facts.number(*WIDTH, default=1) // max(1, heads)
    if facts.kind in LATENT:
        return facts.number("kv_lora_rank", default=512) + facts.number("qk_rope_head_dim", default=64)
    if facts.kind in UNFOLDED:
        keys = facts.number("qk_nope_head_dim", default=128) + facts.number("qk_rope_head_dim", default=64)
        values = part if facts.kind == "minicpm3" else facts.number("v_head_dim", default=128)
        return heads * (keys + values)
    shared_by_all = facts.values.get("multi_query") is True
    head = facts.number("head_size", "head_dim", default=0) or part
    return 2 * facts.number(*KV_HEADS, default=1 if shared_by_all else heads) * head


def _num_loops(facts: "_Facts") -> int:
    """How often a token goes through the layers, which keep it each time."""
    if facts.kind == "iquestloopcoder":
        return facts.number("loop_num", default=2)
    if facts.kind != "nanbeige":
        return 1
    weights = facts.values.get("loop_loss_weights")
    return len(weights) + 1 if isinstance(weights, list) and weights else facts.number("num_loops", default=1)


def _width_of(runtime: str, config: dict[str, Any]) -> int:
    """Bytes of one number in a row; what is quantized is computed in 32 bits, see `runtimes.mlx`."""
    is_half = config.get("torch_dtype", config.get("dtype")) in ("float16", "bfloat16")
    return 2 if runtime == "mlx" and is_half and not config.get("quantization") else 4


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_JSON_BYTES:
        raise HeaderError(f"{path} has more than {MOST_JSON_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise HeaderError(f"{path} is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise HeaderError(f"{path} holds no JSON object")
    return value


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


class _Facts(Struct, frozen=True):
    """Numbers out of a stranger's JSON."""

    folder: Path
    values: dict[str, Any]

    @property
    def kind(self) -> object:
        return self.values.get("model_type")

    def number(self, *keys: str, default: int) -> int:
        """By the first of these names that is there; where each layer has its own, the largest."""
        key = next((key for key in keys if self.values.get(key) is not None), None)
        if key is None:
            return default
        value = self.values[key]
        numbers = value if isinstance(value, list) and value else [value]
        if not all(type(one) is int and 0 <= one < 2**24 for one in numbers):
            raise HeaderError(f"{self.folder}: {key} is {value!r}, which no model has")
        return int(max(numbers))
