"""Measures Pilotlight at rest and at its start: time to ready, time to a first token, memory, wake-ups.

It has no peer: the targets are absolute, and it fails if one is missed.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from client import CallFailed, Client
from load import Figures
from processes import rss_mb, tree, voluntary_switches
from servers import Launch, Server, ServerFailed, end_on_sigterm, find_pilotlight, pilotlight, running
from table import Target, against

SETTLE_S = 5.0
GREETING = [{"role": "user", "content": "Hello"}]

TARGETS = {
    "ready s": Target(0.6),
    "first token s": Target(1.5),
    "daemon RSS MB": Target(70),
    "switches/s, daemon alone": Target(0),
    "switches/s, daemon with worker": Target(0),
    "switches/s, worker": Target(0),
}


async def rest(launch: Launch, num_starts: int, idle_s: float) -> Figures:
    """Start a few times, then watch one daemon idle, first alone and then with a loaded worker."""
    starts = [await start_up(launch) for _ in range(num_starts)]
    figures = {name: statistics.median(start[name] for start in starts) for name in starts[0]}
    async with running(launch) as server:
        return figures | await _idle_alone(server, idle_s) | await _idle_loaded(server, idle_s)


async def start_up(launch: Launch) -> Figures:
    """Seconds from exec to readiness, and from exec to the first streamed token of `launch.model`."""
    async with running(launch) as server, Client(server.url, server.model) as client:
        asked_s = time.perf_counter()
        reply = await client.chat(GREETING, 8)
        return {
            "ready s": server.ready_s,
            "first token s": asked_s - server.started_s + reply.ttft_s,
        }


async def _idle_alone(server: Server, idle_s: float) -> Figures:
    switches = await _switches([server.pid], idle_s)
    return {
        "daemon RSS MB": rss_mb(server.pid),
        "switches/s, daemon alone": switches[server.pid],
    }


async def _idle_loaded(server: Server, idle_s: float) -> Figures:
    async with Client(server.url, server.model) as client:
        await client.chat(GREETING, 8)
    workers = [process.pid for process in tree(server.pid)[1:]]
    if not workers:
        raise ServerFailed("the daemon has no child process after an answer; where is its worker?")
    switches = await _switches([server.pid, *workers], idle_s)
    return {
        "switches/s, daemon with worker": switches[server.pid],
        "switches/s, worker": sum(switches[pid] for pid in workers),
        "worker RSS MB": sum(rss_mb(pid) for pid in workers),
    }


async def _switches(pids: list[int], idle_s: float) -> dict[int, float]:
    """Voluntary switches per second of each process, once it has settled."""
    await asyncio.sleep(SETTLE_S)
    before = {pid: voluntary_switches(pid) for pid in pids}
    await asyncio.sleep(idle_s)
    return {pid: (voluntary_switches(pid) - before[pid]) / idle_s for pid in pids}


def _missed(figures: Figures) -> list[str]:
    """The names of those that do not keep their targets."""
    return [name for name, target in TARGETS.items() if target.verdict(figures[name]) == "MISS"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Pilotlight at its start and at rest.")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--starts", type=int, default=5, help="starts to take the median of")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each idle watch")
    args = parser.parse_args()
    end_on_sigterm()
    # An installed program is compiled once, not at every start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
            launch = pilotlight(find_pilotlight(args.pilotlight), Path(state))
            figures = asyncio.run(rest(launch, args.starts, args.seconds))
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(against(figures, TARGETS))
    if missed := _missed(figures):
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
