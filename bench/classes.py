"""What an interactive request notices of eight saturating background streams on the same worker.

The same requests alone and beside the streams, on Pilotlight and on llama.cpp's own server. That one knows no
classes, so it gets a slot more than there are streams; Pilotlight has as many rows as there are streams.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from client import CallFailed, Client, Reply
from load import REAL_PLAN, Load
from models import ensure_model
from saturation import NUM_PROMPT_WORDS, ask, saturated
from servers import (
    Launch,
    ServerFailed,
    Settings,
    end_on_sigterm,
    find_pilotlight,
    peer,
    pilotlight,
    running,
)
from table import Target, number, render

NUM_STREAMS = 8
NUM_BACKGROUND_TOKENS = 400
PAUSE_S = (0.3, 1.3)
"""Between two interactive requests, at random: they come at any moment of a background step."""

TARGETS = {"TTFT p95 ms": Target(1.2), "decode tok/s": Target(0.95, is_floor=True)}

Figures = dict[str, float]


async def measure(load: Load, args: argparse.Namespace) -> tuple[Figures, Figures]:
    """Alone, and beside the streams."""
    async with load.client() as client:
        await client.chat(ask("warm up"), 8)
        alone = await _interactive(client, replace(load, round=1), args)
        async with saturated(replace(load, round=2), NUM_STREAMS, NUM_BACKGROUND_TOKENS):
            return alone, await _interactive(client, replace(load, round=3), args)


async def _interactive(client: Client, load: Load, args: argparse.Namespace) -> Figures:
    pauses = random.Random(load.round)
    replies: list[Reply] = []
    for call in range(args.calls):
        await asyncio.sleep(pauses.uniform(*PAUSE_S))
        replies.append(await client.chat(ask(load.words(NUM_PROMPT_WORDS, call)), args.tokens))
    ttfts = sorted(1000 * reply.ttft_s for reply in replies)
    return {
        "TTFT p50 ms": statistics.median(ttfts),
        "TTFT p95 ms": statistics.quantiles(ttfts, n=20, method="inclusive")[-1],
        "decode tok/s": statistics.median(reply.tokens_per_s for reply in replies),
    }


async def compare(args: argparse.Namespace) -> list[list[str]]:
    """A row per figure and server; raises ServerFailed and CallFailed."""
    settings = Settings(args.model.resolve(), args.threads, args.context, NUM_STREAMS)
    rows = [["", "alone", f"beside {NUM_STREAMS}", "ratio", "target", ""]]
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
        launches = [pilotlight(find_pilotlight(args.pilotlight), Path(state), settings)]
        if args.peer:
            launches.append(peer(args.peer, replace(settings, num_parallel=NUM_STREAMS + 1)))
        for launch in launches:
            rows += await _rows(launch, args)
    return rows


async def _rows(launch: Launch, args: argparse.Namespace) -> list[list[str]]:
    async with running(launch) as server:
        alone, beside = await measure(Load(server.url, server.model, server.pid, REAL_PLAN), args)
    rows = []
    for name, value in alone.items():
        ratio = beside[name] / value
        words = [f"{launch.name} {name}", number(value), number(beside[name]), f"{ratio:.2f}"]
        target = TARGETS.get(name) if launch.port is None else None
        rows.append([*words, str(target), target.verdict(ratio)] if target else [*words, "", ""])
    return rows


def main() -> None:
    end_on_sigterm()
    parser = argparse.ArgumentParser(description="Interactive requests beside background streams.")
    parser.add_argument("--peer", help="path of llama-server; default: none")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: random weights, 1.24 B")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=16384)
    parser.add_argument("--calls", type=int, default=20, help="interactive requests, alone and beside")
    parser.add_argument("--tokens", type=int, default=32, help="of each of their answers")
    args = parser.parse_args()
    args.model = args.model or ensure_model("llama-1b", vocab=None)
    try:
        rows = asyncio.run(compare(args))
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{args.model.name}, {args.threads} threads, {args.calls} requests of {args.tokens} tokens\n")
    print(render(rows))


if __name__ == "__main__":
    main()
