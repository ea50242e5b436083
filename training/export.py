"""Write the network, as trained or from its Hugging Face folder, as a GGUF and as a Hugging Face folder."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import Config
from tokenizer import CONTROL, VISIBLE

NAME = "pilot"
DESCRIPTION = (
    "The built-in model of Pilotlight: a chat model of about four million parameters, trained from nothing "
    "on synthetic conversations."
)
PAD, END = "<|endoftext|>", "<|im_end|>"
TEMPLATE = Path(__file__).parent / "chat_template.jinja"
# Hugging Face's names for the fields of `Config`.
SHAPE = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "ff_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "context": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
}
# How matrices are stored in the GGUF, and what the file calls itself then.
KINDS = {
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
}
TENSORS = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def gguf_name(name: str) -> str:
    """GGUF's name for a tensor of ours."""
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        return f"blk.{layer}.{TENSORS[rest]}"
    return TENSORS[name]


def interleave(weight: Any, heads: int) -> Any:
    """Reorder a query or key projection from rotating halves to rotating neighbours, as GGUF's llama does."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_model(folder: Path) -> tuple[Config, dict[str, Tensor]]:
    """Shape and weights, from the folder that train.py wrote or from a Hugging Face one (`write_folder`)."""
    stored = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    shape = {ours: stored[ours if ours in stored else theirs] for ours, theirs in SHAPE.items()}
    return Config(**shape), {name.removeprefix("model."): tensor for name, tensor in weights.items()}


def write_gguf(
    config: Config, weights: dict[str, Tensor], tokenizer: dict[str, Any], path: Path, precision: str
) -> None:
    """The model in one GGUF: matrices as `KINDS` says, norms in 32 bits, tokenizer and template inside."""
    kind, file_type = KINDS[precision]
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(str(partial), "llama")
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ff_size)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    ids = dict(tokenizer["model"]["vocab"])
    ids.update((added["content"], added["id"]) for added in tokenizer["added_tokens"])
    tokens = sorted(ids, key=lambda token: ids[token])
    kinds = [
        gguf.TokenType.USER_DEFINED
        if token in VISIBLE
        else gguf.TokenType.CONTROL
        if token in CONTROL
        else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(ids[PAD])
    writer.add_eos_token_id(ids[END])
    writer.add_pad_token_id(ids[PAD])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text())

    for name, tensor in weights.items():
        array = tensor.float().numpy()
        if "q_proj" in name:
            array = interleave(array, config.heads)
        elif "k_proj" in name:
            array = interleave(array, config.kv_heads)
        array = np.ascontiguousarray(array, dtype=np.float32)
        if array.ndim == 1:
            writer.add_tensor(gguf_name(name), array)
        else:
            writer.add_tensor(gguf_name(name), gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # Whoever has the old file open keeps it whole.
    os.replace(partial, path)


def write_folder(config: Config, weights: dict[str, Tensor], tokenizer: dict[str, Any], folder: Path) -> None:
    """The model as `LlamaForCausalLM` in bfloat16, with a fast tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {f"model.{name}": tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    pad, end = added[PAD]["id"], added[END]["id"]
    special = {"bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad}
    files: dict[str, dict[str, Any]] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **{SHAPE[key]: value for key, value in asdict(config).items()},
            "rope_scaling": None,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "use_cache": True,
            "torch_dtype": "bfloat16",
            **special,
        },
        "generation_config.json": {**special, "eos_token_id": [end, pad], "do_sample": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {
                str(token["id"]): {key: token[key] for key in token if key != "id"}
                for token in added.values()
            },
            "bos_token": PAD,
            "eos_token": END,
            "pad_token": PAD,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.context,
            "chat_template": TEMPLATE.read_text(),
        },
        "tokenizer.json": tokenizer,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json used in training")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder that train.py wrote, or a Hugging Face one"
    )
    parser.add_argument("--gguf", type=Path, help="file to write")
    parser.add_argument("--precision", choices=KINDS, default="q8_0", help="of the GGUF's matrices")
    parser.add_argument("--hugging-face", type=Path, help="folder to write")
    args = parser.parse_args()
    config, weights = read_model(args.model)
    tokenizer = json.loads(args.tokenizer.read_text())
    if args.gguf:
        write_gguf(config, weights, tokenizer, args.gguf, args.precision)
        print(f"{args.gguf}: {args.gguf.stat().st_size:,} bytes")
    if args.hugging_face:
        write_folder(config, weights, tokenizer, args.hugging_face)


if __name__ == "__main__":
    main()
