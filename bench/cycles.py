"""Loads and unloads a model many times, and looks at what is left: memory, descriptors, files, processes."""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from admin import Admin
from processes import children_pss, rss_mb
from servers import ServerFailed, end_on_sigterm, find_pilotlight, pilotlight, running
from table import Target, against

NUM_WARM = 10
"""Cycles before the first look: what Python keeps for good is there then."""

TARGETS = {
    "daemon RSS, growth %": Target(2),
    "unload worst s": Target(0.5),
    "worker bytes left": Target(0),
    "descriptors more": Target(0),
    "threads more": Target(2),  # a pool's come and go
    "files more": Target(0),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What the daemon holds, with nothing loaded."""

    rss_mb: float
    descriptors: int
    threads: int
    files: int


async def cycles(command: str, num_cycles: int, state: Path) -> dict[str, float]:
    """Of the built-in model."""
    async with running(pilotlight(command, state)) as server, Admin(server, state) as admin:

        async def cycle() -> tuple[float, int]:
            """Seconds until the worker's memory was free, and what it still held then."""
            await admin.load()
            started_s = time.perf_counter()
            await admin.unload()
            return time.perf_counter() - started_s, sum(children_pss(server.pid).values())

        for _ in range(NUM_WARM):
            await cycle()
        before = _look(server.pid, state)
        unloads = [await cycle() for _ in range(num_cycles)]
        after = _look(server.pid, state)
    return {
        "cycles": num_cycles,
        "daemon RSS before MB": before.rss_mb,
        "daemon RSS, growth %": (after.rss_mb / before.rss_mb - 1) * 100,
        "unload median s": statistics.median(seconds for seconds, _ in unloads),
        "unload worst s": max(seconds for seconds, _ in unloads),
        "worker bytes left": max(left for _, left in unloads),
        "descriptors more": after.descriptors - before.descriptors,
        "threads more": after.threads - before.threads,
        "files more": after.files - before.files,
    }


def _look(pid: int, state: Path) -> Look:
    process = psutil.Process(pid)
    return Look(rss_mb(pid), process.num_fds(), process.num_threads(), len(list(state.rglob("*"))))


def main() -> None:
    parser = argparse.ArgumentParser(description="Load and unload the built-in model many times.")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--cycles", type=int, default=200)
    args = parser.parse_args()
    end_on_sigterm()
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
            figures = asyncio.run(cycles(find_pilotlight(args.pilotlight), args.cycles, Path(state)))
    except (ServerFailed, httpx.HTTPError) as error:
        sys.exit(f"error: {error}")
    print(against(figures, TARGETS))


if __name__ == "__main__":
    main()
