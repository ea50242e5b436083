"""Compare a served model's greedy answers with the torch network, token for token.

An answer is the network's own if each of its tokens is the one that the network deems likeliest after those
before it. Where they part, it prints how far apart the network has the two: a gap of thousandths of a logit
is a tie that rounding decides, a large one is a different model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer

from dataset import render
from evaluate import THRESHOLDS
from export import read_model
from model import Pilot
from served import Answer, served
from words import Source

FOLDER = Path(__file__).parent / "pilot-hf"


def prompts(count: int, seed: int) -> Iterator[str]:
    """Held-out prompts as `evaluate.py` asks them, of each skill in turn."""
    skills = list(THRESHOLDS)
    sources = [Source(Random(seed), held_out=True) for _ in skills]
    for number in range(count):
        turn = number % len(skills)
        yield render(skills[turn](sources[turn]), prompt=True)


@dataclass(frozen=True)
class Parting:
    """The first token of an answer that isn't the network's: its number, both, and the gap in logits."""

    number: int
    said: str
    expected: str
    gap: float

    def __str__(self) -> str:
        return f"token {self.number}: {self.said} instead of {self.expected}, {self.gap:.4f} logits below it"


class Reference:
    """The network in torch, in 32 bits, from the Hugging Face folder; no cache, nothing quantized."""

    def __init__(self, folder: Path) -> None:
        config, weights = read_model(folder)
        self._network = Pilot(config)
        self._network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]

    @torch.inference_mode()
    def parting(self, prompt: str, answer: Answer) -> Parting | None:
        """Where the answer stops being what the network would say; None if it never does."""
        asked = self._tokens(prompt)
        said = self._tokens(answer.text) + self._ends[: int(answer.stopped)]
        features = self._network(torch.tensor([asked + said]))[0, len(asked) - 1 : -1]
        logits = self._network.logits(features)
        for number, (token, likeliest) in enumerate(zip(said, logits.argmax(-1).tolist(), strict=True)):
            # Either of the two tokens that end an answer ends it.
            if token != likeliest and not {token, likeliest} <= set(self._ends):
                gap = float(logits[number, likeliest] - logits[number, token])
                return Parting(number, self._name(token), self._name(likeliest), gap)
        return None

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _name(self, token: int) -> str:
        return repr(self._tokenizer.decode([token], skip_special_tokens=False))


def main() -> int:
    """Print each answer that differs, then how many are the same; return 1 if one isn't."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="names of built-in models, GGUF files or model folders")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="Hugging Face folder of the network")
    parser.add_argument("--count", type=int, default=50, help="prompts")
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    reference = Reference(args.folder)
    asked = list(prompts(args.count, args.seed))
    num_same = 0
    for name in args.models:
        with served(name, args.threads) as model:
            answers = [model.answer(prompt) for prompt in asked]
        partings = list(map(reference.parting, asked, answers))
        for number, parting in enumerate(partings):
            if parting is not None:
                print(f"  prompt {number}, {parting}")
        num_tokens = sum(answer.tokens for answer in answers)
        print(
            f"{name}: {partings.count(None)} of {len(asked)} answers are the network's, {num_tokens} tokens"
        )
        num_same += partings.count(None)
    return int(num_same < len(asked) * len(args.models))


if __name__ == "__main__":
    raise SystemExit(main())
