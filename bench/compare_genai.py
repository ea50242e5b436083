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
from compare import REAL_TARGETS, side
from comparison import Comparison, Side
from load import NUM_PROMPT_WORDS, REAL_PLAN, Figures, Load
from servers import ServerFailed, Settings, end_on_sigterm, find_pilotlight, pilotlight, running

SCENARIOS = ("stream1", "conc", "batch")


class Peer:
    """The process of `peer_genai.py`."""

    def __init__(self, folder: Path, num_threads: int) -> None:
        """It loads; the first answer waits for that, and warms up."""
        script = Path(__file__).with_name("peer_genai.py")
        command = [sys.executable, str(script), str(folder), str(num_threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    async def measure(self, round_number: int, scenario: str) -> Figures:
        """Rates of `load.py`'s figures, on prompts like its own; asyncio has nothing else to do meanwhile."""
        load = Load("", "", self._process.pid, REAL_PLAN, round_number)
        if scenario == "stream1":
            single = [self._ask(load, NUM_PROMPT_WORDS, 1, i) for i in range(load.plan.num_single)]
            return {"1 stream tok/s": statistics.median(single)}
        if scenario == "conc":
            return {f"{n} streams tok/s": self._ask(load, NUM_PROMPT_WORDS, n) for n in (4, 8)}
        alone, together = (self._ask(load, 1, num_streams) for num_streams in (1, 8))
        return {
            "1 short prompt tok/s": alone,
            "8 short prompts tok/s": together,
            "8 / 1 short prompts": together / alone,
        }

    def _ask(self, load: Load, num_words: int, num_streams: int, repeat: int = 0) -> float:
        prompts = [load.words(num_words, num_streams, repeat, number) for number in range(num_streams)]
        is_decode = num_words > 1 and num_streams == 1
        asked = json.dumps({"prompts": prompts, "num_tokens": load.plan.num_tokens, "is_decode": is_decode})
        assert self._process.stdin is not None and self._process.stdout is not None
        print(asked, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise ServerFailed("peer_genai.py ended; is onnxruntime-genai installed beside this Python?")
        rate: float = json.loads(answer)
        return rate

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


async def compare(args: argparse.Namespace, peer: Peer, state: Path) -> Comparison:
    """Raises ServerFailed and CallFailed."""
    settings = Settings(args.folder.resolve(), args.threads, args.context, 8)
    launch = pilotlight(find_pilotlight(args.pilotlight), state, settings)
    async with running(launch) as server:
        ours = side(launch, server, REAL_PLAN)
        theirs = Side("genai loop", peer.measure)
        for one in (ours, theirs):
            await one.measure(0, "stream1")  # Warms up.
        comparison = Comparison(REAL_TARGETS)
        await comparison.run((ours, theirs), args.rounds, SCENARIOS)
    return comparison


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
            print(asyncio.run(compare(args, peer, Path(state))).table())
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    finally:
        peer.close()


if __name__ == "__main__":
    main()
