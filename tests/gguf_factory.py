"""Makes a real, tiny GGUF: a llama with seeded random weights, a byte-level vocabulary and a ChatML template.

About 130 kB, and milliseconds to load and step, so tests of a runtime need no download. It says nonsense:
printable ASCII, the same for the same seed.
"""

import os
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""The last three tokens of the vocabulary; the first is also BOS (never added by itself), the last is EOS."""

WORDS = (" the", " and", " you", " to", " of", " model", " is", "user", "assistant", "system", "ing")
"""Words that have a token of their own, so that tokens are not just bytes."""

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

HEAD_SIZE = 16


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 0,
    context: int = 2048,
    chat_template: str | None = CHATML,
    end_bias: float = -12.0,
    is_printable: bool = True,
    width: int = 64,
    layers: int = 2,
    original_context: int = 0,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
) -> Path:
    """Write the file and return its path; the same arguments give the same bytes.

    `end_bias` is how much likelier than others `<|im_end|>` is, in logits: at -12 answers run to their token
    limit, at 0 sampled ones end somewhere. Unless `is_printable`, bytes that are no ASCII text come as often
    as others. `width` (a multiple of 64) and `layers` make it slower. With an `original_context` there
    are two sets of rotary factors, one for contexts up to that, one for longer ones. Matrices are in `kind`.
    """
    tokens, writer = _begin(path, context, width, layers, 2 * width)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    if original_context:
        _add_rope_factors(writer, original_context)
    bias = _biases(tokens, end_bias, is_printable)
    for name, weights in _weights(np.random.default_rng(seed), bias, width, layers).items():
        _add_tensor(writer, name, weights, kind)
    _finish(writer)
    return path


def write_windowed_gguf(path: Path, window: int, *, width: int = 64, layers: int = 2) -> Path:
    """Write an OLMo: every other layer looks back only `window` tokens."""
    tokens, writer = _begin(path, 2048, width, layers, 2 * width, "olmo2")
    writer.add_sliding_window(window)
    writer.add_uint32("olmo2.attention.sliding_window_pattern", 2)
    bias = _biases(tokens, end_bias=-12.0, is_printable=True)
    ones, spares_bias = np.ones(width, np.float32), np.r_[0, np.ones(width - 1)].astype(np.float32)
    tensors = _weights(np.random.default_rng(0), bias, width, layers)
    for layer in range(layers):
        # Norms are behind attention and feed-forward instead of before them, and in attention.
        del tensors[f"blk.{layer}.attn_norm.weight"], tensors[f"blk.{layer}.ffn_norm.weight"]
        tensors |= {
            f"blk.{layer}.attn_q_norm.weight": ones,
            f"blk.{layer}.attn_k_norm.weight": ones[: width // 2],
            f"blk.{layer}.post_attention_norm.weight": spares_bias,
            f"blk.{layer}.post_ffw_norm.weight": spares_bias,
        }
    for name, weights in tensors.items():
        _add_tensor(writer, name, weights, gguf.GGMLQuantizationType.Q8_0)
    _finish(writer)
    return path


def write_recurrent_gguf(path: Path, *, width: int = 64, state: int = 16, rank: int = 4) -> Path:
    """Write a Mamba of one layer: what it remembers is one value for all tokens, which cannot be cut."""
    tokens, writer = _begin(path, 2048, width, 1, 0, "mamba")
    inner, kernel = 2 * width, 4
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    random = np.random.default_rng(0)

    def normal(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)

    tensors = _weights(random, _biases(tokens, end_bias=-12.0, is_printable=True), width, layers=0) | {
        "blk.0.attn_norm.weight": np.ones(width, np.float32),
        "blk.0.ssm_in.weight": normal(2 * inner, width),
        "blk.0.ssm_conv1d.weight": normal(inner, kernel),
        "blk.0.ssm_conv1d.bias": np.zeros(inner, np.float32),
        "blk.0.ssm_x.weight": normal(rank + 2 * state, inner),
        "blk.0.ssm_dt.weight": normal(inner, rank),
        "blk.0.ssm_dt.bias": np.zeros(inner, np.float32),
        "blk.0.ssm_a": -np.ones((inner, state), np.float32),
        "blk.0.ssm_d": np.ones(inner, np.float32),
        "blk.0.ssm_out.weight": np.r_[np.zeros((1, inner), np.float32), normal(width - 1, inner)],
    }
    for name, weights in tensors.items():
        writer.add_tensor(name, weights)
    _finish(writer)
    return path


def write_hollow_gguf(path: Path, feed_forward: int) -> Path:
    """Write a model as large as you like, about 400 bytes for each of `feed_forward` (a multiple of 32).

    It takes no room on disk: where its weights should be, the file has a hole, which reads as zeros.
    """
    tokens, writer = _begin(path, context=2048, width=64, layers=2, feed_forward=feed_forward)
    kind = gguf.GGMLQuantizationType.Q8_0
    num_bytes = 0
    for name, weights in _weights(np.random.default_rng(0), np.zeros(len(tokens), np.float32), 64, 2).items():
        shape = tuple(feed_forward if size == 128 else size for size in weights.shape)
        size = 4 * shape[0] if len(shape) == 1 else shape[0] * shape[1] // 32 * 34
        writer.add_tensor_info(name, shape, weights.dtype, size, None if len(shape) == 1 else kind)
        num_bytes += writer.ggml_pad(size, writer.data_alignment)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size + writer.data_alignment + num_bytes)
    return path


def write_lora(
    path: Path,
    shapes: dict[str, tuple[int, int]],
    *,
    seed: int = 0,
    rank: int = 4,
    architecture: str = "llama",
    kind: str = "adapter",
) -> Path:
    """Write a LoRA adapter with random matrices for the tensors of these shapes (rows, columns)."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for name, (rows, columns) in shapes.items():
        for part, shape in (("a", (rank, columns)), ("b", (rows, rank))):
            weights = random.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
            writer.add_tensor(f"{name}.lora_{part}", weights)
    _finish(writer)
    return path


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _begin(
    path: Path, context: int, width: int, layers: int, feed_forward: int, architecture: str = "llama"
) -> tuple[list[str], gguf.GGUFWriter]:
    """The vocabulary, and a file with everything but a chat template and tensors."""
    tokens, merges = _vocabulary()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(width // HEAD_SIZE)
    writer.add_head_count_kv(width // HEAD_SIZE // 2)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_vocabulary(writer, tokens, merges)
    return tokens, writer


def _add_rope_factors(writer: gguf.GGUFWriter, original_context: int) -> None:
    """As Phi has them: positions as they are, and positions that are closer together."""
    writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
    writer.add_rope_scaling_orig_ctx_len(original_context)
    short = np.ones(HEAD_SIZE // 2, np.float32)
    writer.add_tensor("rope_factors_short.weight", short)
    writer.add_tensor("rope_factors_long.weight", 8 * short)


def _vocabulary() -> tuple[list[str], list[str]]:
    """All bytes in GPT-2's spelling, `WORDS` grown letter by letter, then the control tokens."""
    spelling = _spell_bytes()
    tokens, merges = list(spelling), []
    for word in WORDS:
        letters = [spelling[byte] for byte in word.encode()]
        grown = ["".join(letters[:end]) for end in range(1, len(letters) + 1)]
        for (left, whole), letter in zip(pairwise(grown), letters[1:], strict=True):
            if whole not in tokens:
                tokens.append(whole)
                merges.append(f"{left} {letter}")
    return [*tokens, *CONTROL], merges


def _spell_bytes() -> list[str]:
    """The visible character that stands for each byte: itself if it is one, else one from 256 up."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def _add_vocabulary(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str]) -> None:
    kinds = [gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)


def _biases(tokens: list[str], end_bias: float, is_printable: bool) -> npt.NDArray[np.float32]:
    """How much likelier than others each token is: text over other bytes, and the end as asked."""
    bias = np.zeros(len(tokens), np.float32)
    if is_printable:
        bias[:256] = [0.0 if 0x20 <= byte < 0x7F else -12.0 for byte in range(256)]
    bias[-len(CONTROL) :] = -12.0
    bias[-1] = end_bias
    return bias


def _weights(
    random: np.random.Generator, bias: npt.NDArray[np.float32], width: int, layers: int
) -> dict[str, npt.NDArray[np.float32]]:
    """All tensors.

    Column 0 of the residual stream is the same for every token and no layer writes to it, so that column of
    the output matrix acts as a bias, which this architecture lacks.
    """

    def normal(rows: int, columns: int, scale: float = 1.0) -> npt.NDArray[np.float32]:
        return random.normal(0, scale / np.sqrt(columns), (rows, columns)).astype(np.float32)

    def writes_residual(columns: int) -> npt.NDArray[np.float32]:
        weights = normal(width, columns)
        weights[0] = 0
        return weights

    ones = np.ones(width, np.float32)
    embedding, output = normal(len(bias), width, scale=np.sqrt(width)), normal(len(bias), width, scale=2)
    embedding[:, 0], output[:, 0] = 1, bias
    tensors = {"token_embd.weight": embedding, "output_norm.weight": ones, "output.weight": output}
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ones,
            f"blk.{layer}.attn_q.weight": normal(width, width, scale=2),
            f"blk.{layer}.attn_k.weight": normal(width // 2, width, scale=2),
            f"blk.{layer}.attn_v.weight": normal(width // 2, width),
            f"blk.{layer}.attn_output.weight": writes_residual(width),
            f"blk.{layer}.ffn_norm.weight": ones,
            f"blk.{layer}.ffn_gate.weight": normal(2 * width, width),
            f"blk.{layer}.ffn_up.weight": normal(2 * width, width),
            f"blk.{layer}.ffn_down.weight": writes_residual(2 * width),
        }
    return tensors


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, weights: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType
) -> None:
    """Matrices in few bits, as real files have them; norms in 32."""
    if weights.ndim == 1:
        writer.add_tensor(name, weights)
        return
    writer.add_tensor(name, gguf.quantize(weights, kind), raw_dtype=kind)
