"""Train the network on the synthetic conversations, on a CPU, in well under an hour."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from dataset import batches, drills
from model import Config, Pilot

MATRIX_RATE = 5e-3  # Peak learning rate of Muon, scaled to match AdamW's update size.
TABLE_RATE = 3e-3  # Peak learning rate of AdamW, for the embedding table and the norms.
WARMUP = 0.02  # Share of the run in which the rate rises,
DECAY = 0.6  # and share in which it falls to zero.
BATCH_TOKENS = 4096
DRILL_TOKENS = 2048  # Tokens of a batch that drills copying.
# Copying is drilled alone from the first to the second of these points of the run, once the embeddings have
# formed, and in one batch of so many after it. Mixed in from the beginning it is learned much later.
DRILL_FROM, DRILL_TO, DRILL_EVERY = 0.15, 0.21, 8
LONGEST = 1536  # Tokens of the longest conversation trained on.
SAVE_EVERY = 250  # Steps between checkpoints.


def rate(progress: float) -> float:
    """Share of the peak learning rate at a point of the run, 0 to 1: up, level, then down in a line."""
    return min(1.0, progress / WARMUP + 0.01, max(0.0, 1.0 - progress) / DECAY)


def loss_of(model: Pilot, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of the next token, in nats."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids[:, :-1])
    losses = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def save(model: Pilot, out: Path) -> None:
    """Write the weights (32 bits) and the shape of the network."""
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    save_file(weights, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")


def train(
    model: Pilot, tokenizer: Tokenizer, out: Path, steps: int, minutes: float, seed: int, begin: float
) -> None:
    """Train for `steps` steps, or a little less thoroughly when they'd take longer than `minutes`.

    `begin` is the point of the schedule, 0 to 1, to begin at.
    """
    print(f"{model.parameter_count():,} parameters", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and not n.startswith("embed")]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or n.startswith("embed")]
    optimizers = (
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=TABLE_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    )
    peaks = (MATRIX_RATE, TABLE_RATE)
    started, seen = time.monotonic(), 0
    conversations = batches(tokenizer, seed, BATCH_TOKENS, LONGEST)
    repetitions = drills(model.config.vocab_size, seed, DRILL_TOKENS)
    means = {False: 0.0, True: 0.0}
    for step in range(1, steps + 1):
        elapsed = (time.monotonic() - started) / 60
        # On a busy machine the clock ends the schedule before the step count does.
        progress = begin + (1 - begin) * max(step / steps, elapsed / minutes)
        if progress > 1:
            break
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate(progress)
        drill = progress > DRILL_FROM and (progress < DRILL_TO or step % DRILL_EVERY == 0)
        ids, weights = next(repetitions if drill else conversations)
        loss = loss_of(model, torch.from_numpy(ids), torch.from_numpy(weights))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()  # type: ignore[no-untyped-call]
            optimizer.zero_grad(set_to_none=True)
        seen += ids.size
        means[drill] += (loss.item() - means[drill]) / min(step, 20)
        if step % 25 == 0:
            speed = seen / (time.monotonic() - started)
            losses = f"loss {means[False]:.4f}  copying {means[True]:.4f}"
            print(f"step {step}  minutes {elapsed:.1f}  {losses}  tokens/s {speed:.0f}", flush=True)
        if step % SAVE_EVERY == 0:
            save(model, out)
    save(model, out)
    print(f"{step} steps, {seen:,} tokens, {(time.monotonic() - started) / 60:.1f} minutes")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json to use")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock limit, minutes")
    parser.add_argument("--seed", type=int, default=8710)
    parser.add_argument("--start", type=Path, help="folder with weights to start from")
    parser.add_argument("--begin", type=float, default=0.0, help="point of the schedule to begin at, 0 to 1")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    model = Pilot(Config(vocab_size=tokenizer.get_vocab_size()))
    if args.start:
        model.load_state_dict(load_file(args.start / "model.safetensors"))
    train(model, tokenizer, args.out, args.steps, args.minutes, args.seed, args.begin)


if __name__ == "__main__":
    main()
