"""Byte-level BPE tokenizer whose word tokens are the same wherever a word stands.

Copying is the model's main skill, and it is far easier when `Oslo` has the same tokens after a space, a quote
or a bracket. So merges are learned within runs of letters, digits or symbols only, and a leading space joins
only the most common words of the fixed phrases, by merges that come after all others.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dataset import conversation, render
from skills.memory import COLOURS
from words import ADJECTIVES, CITIES, KEYS, NAMES, NOUNS, VERBS, Source

VOCABULARY = 2048
SPACED_WORDS = 480
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISIBLE = ("<tool_call>", "</tool_call>", "<think>", "</think>")
# What llama.cpp runs for the pre-tokenizer it calls "qwen2"; every digit is its own token.
QWEN2 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
STRICT = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s"
SPACE = "Ġ"  # How byte-level BPE writes a space.


def corpus(size: int = 16000, seed: int = 1) -> list[str]:
    """Rendered conversations without their special tokens."""
    source = Source(Random(seed))
    special = "|".join(re.escape(token) for token in CONTROL + VISIBLE)
    return [part for _ in range(size) for part in re.split(special, render(conversation(source))) if part]


def learn_merges(texts: Iterable[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of `size` tokens, and its merges in order."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(STRICT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def build(texts: list[str]) -> Tokenizer:
    """The finished tokenizer."""
    vocabulary, merges = learn_merges(texts, VOCABULARY - SPACED_WORDS - len(CONTROL + VISIBLE))
    copied = {*NOUNS, *ADJECTIVES, *VERBS, *KEYS, *COLOURS, *NAMES, *CITIES}
    counts = Counter(word for text in texts for word in re.findall(r" ([A-Za-z]+)", text))
    common = [w for w, _ in counts.most_common() if w in vocabulary and w not in copied]
    for word in common[:SPACED_WORDS]:
        merges.append((SPACE, word))
        vocabulary[SPACE + word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in VISIBLE])
    while tokenizer.get_vocab_size() < VOCABULARY:
        # Rows of the embedding nobody uses keep its size a power of two.
        tokenizer.add_special_tokens([f"<|unused_{tokenizer.get_vocab_size()}|>"])
    return tokenizer


def main() -> None:
    """Read the command line and write the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the tokenizer.json to write")
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    built = build(corpus())
    built.save(str(out))
    print(f"{built.get_vocab_size()} tokens in {out}")


if __name__ == "__main__":
    main()
