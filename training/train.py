"""Train the network on the synthetic conversations, on a CPU, in well under an hour."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from dataset import batches, drills
from model import Config, Pilot
from muon import Muon

MATRIX_RATE = 5e-3  # Peak learning rate of Muon, scaled to match AdamW's update size.
TABLE_RATE = 3e-3  # Peak learning rate of AdamW, for the embedding table and the norms.
WARMUP = 0.02  # Share of the run in which the rate rises,
DECAY = 0.6  # and share in which it falls to zero.
BATCH_TOKENS = 3072
DRILL_TOKENS = 2048  # Tokens of a batch that drills copying.
# Copying is drilled alone up to this point of the run, and in one batch of so many after it: what is learned
# after it builds on it.
DRILL_UNTIL, DRILL_EVERY = 0.03, 8
LONGEST = 1536  # Tokens of the longest conversation trained on.
SAVE_EVERY = 250  # Steps between checkpoints.


def rate(progress: float) -> float:
    """Share of the peak learning rate at a point of the run, 0 to 1: up, level, then down in a line."""
    return min(1.0, progress / WARMUP + 0.01, max(0.0, 1.0 - progress) / DECAY)


def loss_of(model: Pilot, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of the next token, in nats."""
    weights = weights[:, 1:]
    # Most tokens are only read; leaving them out saves their share of the output projection.
    learned = weights > 0
    logits = model.logits(model(ids[:, :-1])[learned])
    losses = F.cross_entropy(logits.float(), ids[:, 1:][learned], reduction="none")
    return (losses * weights[learned]).sum() / weights.sum()


def drill_loss(model: Pilot, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of what is said the second time, in nats, and of where the heads that copy look.

    Copying takes a head that looks at the token before, and above it one that looks behind the last
    occurrence of the current token (an induction head: Olsson et al., "In-context Learning and Induction
    Heads", 2022). Left to itself a network finds the two late and suddenly; told where to look, it copies
    within 200 steps.
    """
    period = ids.shape[1] // 2
    features, (before, *behind) = model.watch(ids[:, :-1], 3)
    second = torch.arange(period, ids.shape[1] - 1)
    logits = model.logits(features[:, second]).flatten(0, 1).float()
    said = F.cross_entropy(logits, ids[:, second + 1].flatten())
    later = torch.arange(1, ids.shape[1] - 1)
    looks = looking(before, later, later - 1)
    for look in behind:
        looks = looks + looking(look, second, second - period + 1)
    return said, looks


def looking(look: Tensor, at: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a head's attention at some tokens with the one token each should look at, in nats."""
    return F.cross_entropy(look[:, at].flatten(0, 1).float(), target.repeat(look.shape[0]))


def save(model: Pilot, out: Path) -> None:
    """Write the weights (32 bits) and the shape of the network."""
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    save_file(weights, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")


def train(
    model: Pilot, tokenizer: Tokenizer, out: Path, steps: int, seed: int, precision: torch.dtype
) -> None:
    """Train for `steps` steps; leave the weights in the folder `out`.

    `precision` is that of products of matrices, for which bfloat16 wants a CPU that has units for it; weights
    and sums are in 32 bits in any case.
    """
    print(f"{model.parameter_count():,} parameters", flush=True)
    conversations = batches(tokenizer, seed, BATCH_TOKENS, LONGEST)
    repetitions = drills(model.config.vocab_size, seed, DRILL_TOKENS)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and not n.startswith("embed")]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or n.startswith("embed")]
    muon = Muon(matrices, precision)
    adam = torch.optim.AdamW(others, lr=TABLE_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    started, seen = time.monotonic(), 0
    means = {False: 0.0, True: 0.0}
    for step in range(1, steps + 1):
        progress = step / steps
        adam.param_groups[0]["lr"] = TABLE_RATE * rate(progress)
        drill = progress < DRILL_UNTIL or step % DRILL_EVERY == 0
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            if drill:
                ids = next(repetitions)
                loss, looks = drill_loss(model, torch.from_numpy(ids))
            else:
                ids, weights = next(conversations)
                loss = loss_of(model, torch.from_numpy(ids), torch.from_numpy(weights))
                looks = torch.zeros(())
        (loss + looks).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step(MATRIX_RATE * rate(progress))
        adam.step()
        adam.zero_grad(set_to_none=True)
        seen += ids.size
        means[drill] += (loss.item() - means[drill]) / min(step, 20)
        if step % 25 == 0:
            elapsed = time.monotonic() - started
            losses = f"loss {means[False]:.4f}  copying {means[True]:.4f}"
            print(
                f"step {step}  minutes {elapsed / 60:.1f}  {losses}  tokens/s {seen / elapsed:.0f}",
                flush=True,
            )
        if step % SAVE_EVERY == 0:
            save(model, out)
    save(model, out)
    print(f"{steps} steps, {seen:,} tokens, {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json to use")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=8710)
    parser.add_argument(
        "--bfloat16", action="store_true", help="multiply in 16 bits: twice as fast where the CPU can do so"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    model = Pilot(Config(vocab_size=tokenizer.get_vocab_size()))
    model.compile(dynamic=True)
    precision = torch.bfloat16 if args.bfloat16 else torch.float32
    train(model, tokenizer, args.out, args.steps, args.seed, precision)


if __name__ == "__main__":
    main()
