"""Emulated hardware in the loop: interactive requests beside saturating background work, where it gets hot.

The real daemon and its worker run on a machine whose heat is emulated (`emulation`): with the policy and, for
contrast, without (`preset = "off"`).
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client import CallFailed, Client, Reply
from emulation import Emulation, emulated, laptop
from load import REAL_PLAN, Load
from models import SHAPES, ensure_model
from saturation import NUM_PROMPT_WORDS, ask, saturated
from servers import (
    Launch,
    Server,
    ServerFailed,
    Settings,
    end_on_sigterm,
    find_pilotlight,
    pilotlight,
    running,
)
from table import Target, number, render

NUM_STREAMS = 2
NUM_BACKGROUND_TOKENS = 100
NUM_ALONE = 8
PAUSE_S = 3.0
"""Between the answers alone: long enough to stay cool."""

POLICIES = ("balanced", "off")
TARGET = Target(0.9, is_floor=True)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one policy; rates in tokens per second."""

    alone: list[float]
    beside: list[float]
    background: float
    hottest: float
    """Degrees Celsius."""
    throttled: float
    """Part of the time."""

    @property
    def parts(self) -> list[float]:
        """Each answer's rate, as a part of what is usual alone."""
        usual = statistics.median(self.alone)
        return [rate / usual for rate in self.beside]


async def measure(launch: Launch, root: Path, args: argparse.Namespace) -> Figures:
    """One policy on a machine that was cold; raises ServerFailed and CallFailed."""
    async with running(launch) as server:
        with emulated(server.pid, laptop(args.times), root, args.threads) as machine:
            async with asyncio.TaskGroup() as tasks:
                heating = tasks.create_task(machine.run())
                figures = await _figures(server, machine, args)
                heating.cancel()
            return figures


async def _figures(server: Server, machine: Emulation, args: argparse.Namespace) -> Figures:
    load = Load(server.url, server.model, server.pid, REAL_PLAN)
    async with load.client() as client:
        await client.chat(ask("warm up"), args.tokens)
        alone = [await _answer(client, load, args.tokens, "alone", n, PAUSE_S) for n in range(NUM_ALONE)]
        first = len(machine.limits)
        async with saturated(replace(load, round=1), NUM_STREAMS, NUM_BACKGROUND_TOKENS) as streams:
            beside = await _beside(client, load, machine, args)
        seconds = len(machine.limits) - first
    return Figures(
        alone=[reply.tokens_per_s for reply in alone],
        beside=[reply.tokens_per_s for reply in beside],
        background=streams.num_tokens / seconds,
        hottest=max(machine.celsius[first:]),
        throttled=sum(limit < 1 for limit in machine.limits[first:]) / seconds,
    )


async def _answer(client: Client, load: Load, tokens: int, *place: object) -> Reply:
    return await client.chat(ask(load.words(NUM_PROMPT_WORDS, *place)), tokens)


async def _beside(client: Client, load: Load, machine: Emulation, args: argparse.Namespace) -> list[Reply]:
    """An answer every so often, until the time is over."""
    replies: list[Reply] = []
    started_s = asyncio.get_running_loop().time()
    for turn in range(1, int(60 * args.minutes / args.every) + 1):
        await asyncio.sleep(started_s + turn * args.every - asyncio.get_running_loop().time())
        replies.append(await _answer(client, load, args.tokens, "beside", turn))
        print(
            f"{turn * args.every:.0f} s: {replies[-1].tokens_per_s:5.1f} tok/s, {machine.celsius[-1]:.1f} C, "
            f"clock {machine.limits[-1]:.2f}",
            file=sys.stderr,
        )
    return replies


async def compare(args: argparse.Namespace) -> list[list[str]]:
    """A row per policy; raises ServerFailed and CallFailed, in a group."""
    settings = Settings(args.model.resolve(), args.threads, args.context, NUM_STREAMS + 1)
    rows = [["policy", *HEAD]]
    for policy in args.policies:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as folder:
            root = Path(folder) / "machine"
            launch = pilotlight(find_pilotlight(args.pilotlight), Path(folder, "state"), settings)
            command = ("env", f"PILOTLIGHT_POLICY_PRESET={policy}", *launch.command)
            command += ("--power-root", str(root))
            figures = await measure(replace(launch, command=command), root, args)
        rows.append([policy, *_cells(figures)])
    return rows


HEAD = (
    "alone tok/s",
    "beside",
    "ratio",
    "lowest",
    "target",
    "",
    "background tok/s",
    "hottest C",
    "throttled",
)


def _cells(figures: Figures) -> Sequence[str]:
    ratio = statistics.mean(figures.parts)
    return (
        number(statistics.median(figures.alone)),
        number(statistics.mean(figures.beside)),
        f"{ratio:.2f}",
        f"{min(figures.parts):.2f}",
        str(TARGET),
        TARGET.verdict(ratio),
        number(figures.background),
        f"{figures.hottest:.1f}",
        f"{figures.throttled:.0%}",
    )


def main() -> None:
    end_on_sigterm()
    parser = argparse.ArgumentParser(description="Answers beside background work on an emulated hot machine.")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: random weights")
    parser.add_argument("--shape", choices=SHAPES, default="smol-135m", help="of the random weights")
    parser.add_argument("--policies", nargs="+", default=POLICIES, help="presets")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each policy")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between interactive requests")
    parser.add_argument("--tokens", type=int, default=200, help="of each of their answers")
    parser.add_argument("--times", type=float, default=6.0, help="so much faster than a laptop it heats")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=4096)
    args = parser.parse_args()
    args.model = args.model or ensure_model(args.shape)
    try:
        rows = asyncio.run(compare(args))
    except* (ServerFailed, CallFailed) as group:
        sys.exit(f"error: {group.exceptions[0]}")
    except* KeyboardInterrupt:
        sys.exit(130)
    print(
        f"{args.model.name}, {args.threads} threads, {args.minutes:g} minutes of {args.tokens} tokens ",
        end="",
    )
    print(
        f"every {args.every:g} s; emulated: a laptop without a fan that heats {args.times:g} times as fast\n"
    )
    print(render(rows))


if __name__ == "__main__":
    main()
