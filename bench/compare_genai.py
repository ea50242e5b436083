"""Compares the ONNX runtime with onnxruntime-genai's own generate loop: same folder, same threads.

Both are alive, one is at work, and who goes first alternates. Ours answers over HTTP, theirs is the bare loop
of `peer_genai.py` in a process of its own.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from client import CallFailed
from load import REAL_PLAN, Load, concurrent, one_stream
from servers import ServerFailed, Settings, end_on_sigterm, find_pilotlight, pilotlight, running
from table import Target, number, render

TARGETS = {"1 stream tok/s": Target(0.97, is_floor=True), "8 streams tok/s": Target(1.0, is_floor=True)}

Figures = dict[str, float]


class Peer:
    """The process of `peer_genai.py`."""

    def __init__(self, folder: Path, num_threads: int) -> None:
        script = Path(__file__).with_name("peer_genai.py")
        command = [sys.executable, str(script), str(folder), str(num_threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, load: Load) -> Figures:
        """One stream's and eight streams' rates, on prompts like those of `load.py`."""
        single = [self._ask([load.words(64, "single", i)]) for i in range(load.plan.num_single)]
        several = self._ask([load.words(64, 8, i) for i in range(8)])
        return {"1 stream tok/s": statistics.median(single), "8 streams tok/s": several}

    def _ask(self, prompts: list[str]) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(
            json.dumps({"prompts": prompts, "num_tokens": REAL_PLAN.num_tokens}),
            file=self._process.stdin,
            flush=True,
        )
        answer = self._process.stdout.readline()
        if not answer:
            raise ServerFailed("peer_genai.py ended; is onnxruntime-genai installed beside this Python?")
        rate: float = json.loads(answer)
        return rate

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


async def measure_ours(load: Load) -> Figures:
    figures = await one_stream(load) | await concurrent(load)
    return {figure: figures[figure] for figure in TARGETS}


async def rounds(args: argparse.Namespace, peer: Peer, state: Path) -> list[tuple[Figures, Figures]]:
    """Ours and theirs, round by round."""
    settings = Settings(args.folder.resolve(), args.threads, args.context, 8)
    launch = pilotlight(find_pilotlight(args.pilotlight), state, settings)
    found = []
    async with running(launch) as server:
        for round_number in range(args.rounds + 1):
            load = Load(server.url, launch.model, server.pid, REAL_PLAN, round_number)
            if round_number % 2:
                ours, theirs = await measure_ours(load), peer.measure(load)
            else:
                theirs = peer.measure(load)
                ours = await measure_ours(load)
            found.append((ours, theirs))
    # The first one loads and warms up.
    return found[1:]


def table(found: list[tuple[Figures, Figures]]) -> str:
    rows = [["figure", "pilotlight", "genai loop", "ratio", "by round", "target", ""]]
    for figure, target in TARGETS.items():
        pairs = [(ours[figure], theirs[figure]) for ours, theirs in found]
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [a / b for a, b in pairs]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        ratio = ours / theirs
        rows.append(
            [
                figure,
                number(ours),
                number(theirs),
                f"{ratio:.2f}",
                spread,
                str(target),
                target.verdict(ratio),
            ]
        )
    return render(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare with onnxruntime-genai's own generate loop.")
    parser.add_argument("folder", type=Path, help="a model folder with a genai_config.json")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=2048, help="tokens of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    end_on_sigterm()
    peer = Peer(args.folder, args.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
            print(table(asyncio.run(rounds(args, peer, Path(state)))))
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    finally:
        peer.close()


if __name__ == "__main__":
    main()
