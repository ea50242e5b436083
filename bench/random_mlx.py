"""Makes an MLX folder of random weights, float16, 30 million parameters: decoding is nearly all the work.

Needs mlx-lm. Its tokenizer is the built-in model's. Not quantized: the CPU of the Linux wheel computes 16-bit
rows side by side in less time than one after another, and no others.
"""

import argparse
import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs

TOKENIZER = Path(__file__).parents[1] / "training" / "pilot-hf"

NUM_VOCAB = 2048
SHAPE = {
    "model_type": "llama",
    "vocab_size": NUM_VOCAB,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "eos_token_id": 2043,
}


def said() -> mx.array:
    """1 for each token that the model may say, 0 for others.

    Words after a space: none ends an answer, since not every server can be told to go on, and each is text
    that can be sent at once.
    """
    vocabulary = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    marks = [0] * NUM_VOCAB
    for token, number in vocabulary.items():
        marks[number] = int(token.startswith("Ġ") and token[1:].isascii() and token[1:].isalpha())
    return mx.array(marks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="is made")
    target: Path = parser.parse_args().folder
    target.mkdir(parents=True)
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(SHAPE))
    # No token is likelier than one with a positive logit, and among many there always is one.
    model.lm_head.weight = model.lm_head.weight * said()[:, None]
    model.set_dtype(mx.float16)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})
    (target / "config.json").write_text(json.dumps(SHAPE, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, target / name)


if __name__ == "__main__":
    main()
