"""Compares Pilotlight with llama.cpp's own server: same file, threads, context and slots.

Both run in turn, in one go, and it prints medians, ratios and verdicts. The load is `load.py`'s, the
processes are `servers.py`'s.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from client import CallFailed
from load import MICRO_PLAN, REAL_PLAN, SCENARIOS, Figures, Load, measure
from models import SHAPES, ensure_model
from servers import Launch, ServerFailed, Settings, end_on_sigterm, find_pilotlight, peer, pilotlight, running
from table import Target, number, render

# Below this the server's own work outweighs the model's: other targets, and more repeats in each round.
MICRO_FILE_BYTES = 64 * 2**20

REAL_TARGETS = {
    "1 stream tok/s": Target(0.97, is_floor=True),
    "4 streams tok/s": Target(1.0, is_floor=True),
    "8 streams tok/s": Target(1.0, is_floor=True),
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


class Comparison:
    """Owns the figures of both sides, one entry per round."""

    def __init__(self, sides: tuple[Launch, Launch], is_micro: bool) -> None:
        self._sides = sides
        self._plan = MICRO_PLAN if is_micro else REAL_PLAN
        self._targets = MICRO_TARGETS if is_micro else REAL_TARGETS
        self._rounds: tuple[list[Figures], list[Figures]] = ([], [])

    async def run(self, num_rounds: int, scenarios: Sequence[str]) -> None:
        """Both alive, one at work: scenario by scenario, who goes first by turns, so that drift hits both."""
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(running(launch)) for launch in self._sides]
            for round_number in range(1, num_rounds + 1):
                print(f"round {round_number}/{num_rounds}", file=sys.stderr)
                loads = [Load(at.url, at.model, at.pid, self._plan, round_number) for at in servers]
                await self._round(loads, scenarios, starts=round_number % 2)

    async def _round(self, loads: Sequence[Load], scenarios: Sequence[str], starts: int) -> None:
        found: tuple[Figures, Figures] = ({}, {})
        for scenario in scenarios:
            for side in (starts, 1 - starts):
                found[side].update(await measure(loads[side], [scenario]))
        for rounds, figures in zip(self._rounds, found, strict=True):
            rounds.append(figures)

    def table(self) -> str:
        ours, theirs = self._sides
        rows = [["figure", ours.name, theirs.name, "ratio", "by round", "target", ""]]
        return render(rows + [self._row(figure) for figure in self._figures()])

    def report(self) -> dict[str, object]:
        """All that was measured, for --json."""
        names = [launch.name for launch in self._sides]
        return {
            "commands": {launch.name: launch.command for launch in self._sides},
            "rounds": dict(zip(names, self._rounds, strict=True)),
            "medians": {
                figure: dict(zip(names, self._medians(figure), strict=True)) for figure in self._figures()
            },
            "ratios": {figure: self._ratio(figure) for figure in self._figures()},
            "verdicts": {
                figure: self._verdict(figure) for figure in self._figures() if figure in self._targets
            },
        }

    def _figures(self) -> list[str]:
        """Those that every round of both sides has."""
        every = [*self._rounds[0], *self._rounds[1]]
        return [figure for figure in every[0] if all(figure in figures for figures in every)]

    def _medians(self, figure: str) -> tuple[float, float]:
        ours, theirs = (statistics.median(round_[figure] for round_ in side) for side in self._rounds)
        return ours, theirs

    def _ratio(self, figure: str) -> float | None:
        ours, theirs = self._medians(figure)
        return ours / theirs if theirs else None

    def _verdict(self, figure: str) -> str:
        target, ratio = self._targets.get(figure), self._ratio(figure)
        return target.verdict(ratio) if target and ratio is not None else ""

    def _row(self, figure: str) -> list[str]:
        ours, theirs = self._medians(figure)
        ratio = self._ratio(figure)
        return [
            figure,
            number(ours),
            number(theirs),
            "-" if ratio is None else f"{ratio:.2f}",
            self._spread(figure),
            str(self._targets.get(figure, "")),
            self._verdict(figure),
        ]

    def _spread(self, figure: str) -> str:
        """Lowest and highest ratio of a single round: how far to trust the median."""
        pairs = [(ours[figure], theirs[figure]) for ours, theirs in zip(*self._rounds, strict=True)]
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else "-"


def compare(args: argparse.Namespace) -> None:
    model: Path = args.model or ensure_model(args.shape, vocab=args.vocab)
    settings = Settings(model.resolve(), args.threads, args.context, args.parallel)
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
        ours = pilotlight(find_pilotlight(args.pilotlight), Path(state), settings)
        sides = (ours, peer(args.peer, settings))
        comparison = Comparison(sides, is_micro=model.stat().st_size < MICRO_FILE_BYTES)
        asyncio.run(comparison.run(args.rounds, args.scenarios))
    print(f"{model.name}, {args.threads} threads, context {args.context}, {args.parallel} slots\n")
    print(comparison.table())
    if args.json:
        args.json.write_text(json.dumps(comparison.report(), indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Pilotlight with llama.cpp's own server.")
    parser.add_argument("--peer", help="path of llama-server, or xllamacpp; default: whichever is found")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=_file, help="a GGUF file")
    model.add_argument(
        "--shape", choices=SHAPES, default="llama-1b", help="random weights, made when missing"
    )
    parser.add_argument("--vocab", type=Path, help="tokenizer for --shape; default: fetched with pip")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=16384, help="tokens for all slots together")
    parser.add_argument("--parallel", type=int, default=8, help="slots")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--json", type=Path, help="also write all figures here")
    return parser.parse_args()


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return Path(text)


def main() -> None:
    end_on_sigterm()
    try:
        compare(_arguments())
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
