"""Compares Pilotlight with llama.cpp's own server: same file, threads, context and slots.

Of an MLX folder, with mlx-lm's own. Both run in turn, in one go, and it prints medians, ratios and verdicts.
The load is `load.py`'s, the processes are `servers.py`'s.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from client import CallFailed
from comparison import Comparison, Side
from load import MICRO_PLAN, REAL_PLAN, SCENARIOS, Figures, Load, Plan, measure
from models import SHAPES, ensure_model
from processes import at_rest
from rest import start_up
from servers import (
    Launch,
    Server,
    ServerFailed,
    Settings,
    end_on_sigterm,
    find_pilotlight,
    peer,
    pilotlight,
    running,
)
from table import Target

START = "start"  # The one scenario that needs a server of its own.
# Below this the server's own work outweighs the model's: other targets, and more repeats in each round.
MICRO_FILE_BYTES = 32 * 2**20

REAL_TARGETS = {
    "1 stream tok/s": Target(0.97, is_floor=True),
    "4 streams tok/s": Target(1.0, is_floor=True),
    "8 streams tok/s": Target(1.0, is_floor=True),
    "1 short prompt tok/s": Target(0.97, is_floor=True),
    "8 short prompts tok/s": Target(1.0, is_floor=True),
    "8 / 1 short prompts": Target(2.0, is_floor=True, is_own=True),
    "busy, 1 stream tok/s": Target(0.9, is_floor=True),
    "busy, 4 streams tok/s": Target(0.9, is_floor=True),
    "4 streams TTFT p50 ms": Target(0.75),
    "8 streams TTFT p50 ms": Target(0.75),
    "chat turn 2 TTFT ms": Target(0.75),
    "chat turn 3 TTFT ms": Target(0.75),
    "chat turn 4 TTFT ms": Target(0.75),
    "memory PSS MiB": Target(0.8),
}
MICRO_TARGETS = {
    "overhead p50 ms": Target(1.3),
    "1 stream tok/s": Target(1.0, is_floor=True),
    "4 streams tok/s": Target(1.2, is_floor=True),
    "8 streams tok/s": Target(1.2, is_floor=True),
}


def side(launch: Launch, server: Server, plan: Plan, another: Callable[[], Launch]) -> Side:
    """A server under the load of `load.py`; `another` is one of its kind to be started beside it."""

    async def measure_round(number: int, scenario: str) -> Figures:
        if scenario == START:
            return {"start to first token s": (await start_up(another()))["first token s"]}
        figures = await measure(Load(server.url, server.model, server.pid, plan, number), [scenario])
        # What it computes ahead after the last answer is not to fall into the other's turn.
        await at_rest(server.pid)
        return figures

    return Side(launch.name, measure_round, launch.command)


async def compare(args: argparse.Namespace) -> Comparison:
    """Start both and let them run in turn, as often as asked; raises ServerFailed and CallFailed."""
    settings = Settings(args.model.resolve(), args.threads, args.context, args.parallel)
    is_micro = _num_bytes(args.model) < MICRO_FILE_BYTES
    plan = MICRO_PLAN if is_micro else REAL_PLAN
    comparison = Comparison(MICRO_TARGETS if is_micro else REAL_TARGETS)
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as states:

        def our_launch() -> Launch:
            command = find_pilotlight(args.pilotlight)
            return pilotlight(command, Path(tempfile.mkdtemp(dir=states)), settings)

        def their_launch() -> Launch:
            return peer(args.peer, settings)

        for start in range(args.starts):
            async with AsyncExitStack() as stack:
                ours, theirs = our_launch(), their_launch()
                # Who comes first gets the better memory, or the worse.
                order = (ours, theirs) if start % 2 == 0 else (theirs, ours)
                servers = {one: await stack.enter_async_context(running(one)) for one in order}
                sides = (
                    side(ours, servers[ours], plan, our_launch),
                    side(theirs, servers[theirs], plan, their_launch),
                )
                await comparison.run(sides, args.rounds, args.scenarios)
    return comparison


def _num_bytes(model: Path) -> int:
    files = model.iterdir() if model.is_dir() else (model,)
    return sum(file.stat().st_size for file in files)


def _arguments() -> argparse.Namespace:
    scenarios = [START, *SCENARIOS]
    parser = argparse.ArgumentParser(description="Compare Pilotlight with a runtime's own server.")
    parser.add_argument(
        "--peer",
        help="path of llama-server, or xllamacpp; default: whichever is found. For MLX: mlx_lm.server",
    )
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=_existing, help="a GGUF file or an MLX folder")
    model.add_argument(
        "--shape", choices=SHAPES, default="llama-1b", help="random weights, made when missing"
    )
    parser.add_argument("--vocab", type=Path, help="tokenizer for --shape; default: fetched with pip")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--context", type=int, default=16384, help="tokens for all slots together, in MLX of each"
    )
    parser.add_argument("--parallel", type=int, default=8, help="slots")
    parser.add_argument("--rounds", type=int, default=3, help="of each start")
    parser.add_argument(
        "--starts", type=int, default=1, help="of both servers: where one's memory lies counts for 5 %%"
    )
    parser.add_argument("--scenarios", nargs="+", choices=scenarios, default=scenarios)
    parser.add_argument("--json", type=Path, help="also write all figures here")
    return parser.parse_args()


def _existing(text: str) -> Path:
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return Path(text)


def main() -> None:
    end_on_sigterm()
    args = _arguments()
    args.model = args.model or ensure_model(args.shape, vocab=args.vocab)
    try:
        comparison = asyncio.run(compare(args))
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{args.model.name}, {args.threads} threads, context {args.context}, {args.parallel} slots\n")
    print(comparison.table())
    if args.json:
        args.json.write_text(json.dumps(comparison.report(), indent=2) + "\n")


if __name__ == "__main__":
    main()
