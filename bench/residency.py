"""Three models where two fit: asks them in random order, and watches what their workers hold together.

Pilotlight keeps a budget in bytes; llama-server's router, the peer, a number of models.
"""

import argparse
import asyncio
import random
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from admin import Admin
from client import CallFailed, Client
from models import SHAPES, WORK, ensure_model
from processes import MIB, children_pss
from servers import (
    Launch,
    Server,
    ServerFailed,
    end_on_sigterm,
    find_pilotlight,
    free_port,
    running,
)
from table import Target, number, render

NAMES = ("first", "second", "third")
SAMPLE_S = 0.05
MOST = "workers' PSS, most, MiB"

TARGETS = {
    "not answered": Target(0, is_own=True),
    "of the budget": Target(1.05, is_own=True),
}


@dataclass(frozen=True, slots=True)
class Load:
    """Who asks how much."""

    num_clients: int
    num_requests: int
    num_tokens: int


@dataclass(slots=True)
class Watch:
    """The sum of the workers' PSS, sampled while they work, and which processes they were."""

    pid: int
    sums: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def sample(self) -> None:
        workers = children_pss(self.pid)
        self.sums.append(sum(workers.values()))
        self.seen |= workers.keys()


@contextmanager
def watching(pid: int) -> Iterator[Watch]:
    """In a thread of its own, so that clients are not late."""
    watch, is_over = Watch(pid), threading.Event()

    def run() -> None:
        due_s = time.monotonic()
        while not is_over.wait(max(0.0, due_s - time.monotonic())):
            watch.sample()
            due_s += SAMPLE_S

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        is_over.set()
        thread.join()


async def measure(launch: Launch, load: Load) -> dict[str, float]:
    """Start the server, ask, and say how it went."""
    async with running(launch) as server:
        started_s = asyncio.get_running_loop().time()
        with watching(server.pid) as watch:
            results = await asyncio.gather(*(_client(server, n, load) for n in range(load.num_clients)))
        waits = sorted(wait for waits in results for wait in waits)
        return {
            "answered": len(waits),
            "not answered": load.num_requests - len(waits),
            "seconds": asyncio.get_running_loop().time() - started_s,
            "wait p50 s": statistics.median(waits),
            "wait p95 s": waits[int(0.95 * len(waits))],
            "wait worst s": waits[-1],
            MOST: max(watch.sums) / MIB,
            "samples": len(watch.sums),
            "workers started": len(watch.seen),
            **(_evictions(server) if launch.name == "pilotlight" else {}),
        }


async def _client(server: Server, number: int, load: Load) -> list[float]:
    """Its waits until the first token; a call that fails is not among them."""
    choices, waits = random.Random(number), []
    for turn in range(load.num_requests // load.num_clients):
        async with Client(server.url, choices.choice(NAMES)) as client:
            prompt = f"client {number} asks for the {turn}. time"
            try:
                reply = await client.chat([{"role": "user", "content": prompt}], load.num_tokens)
                waits.append(reply.ttft_s)
            except CallFailed as error:
                print(f"client {number}: {error}", file=sys.stderr)
    return waits


def _evictions(server: Server) -> dict[str, float]:
    """By reason, as Pilotlight tells."""
    counted: Counter[str] = Counter()
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if match := re.match(r'pilotlight_evictions_total{.*reason="(\w+)"} (.*)', line):
            counted[f"evictions, {match[1]}"] += int(float(match[2]))
    return dict(counted)


def copies(model: Path) -> Path:
    """A folder with the model under three names: files of their own, so that no page is shared."""
    folder = WORK / f"three-{model.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if not (copy := folder / f"{name}.gguf").exists():
            shutil.copyfile(model, copy)
    return folder


def _pilotlight(command: str, folder: Path, state_dir: Path, settings: dict[str, int], budget: str) -> Launch:
    config = state_dir / "models.toml"
    models = "".join(f'[[model]]\nname = "{name}"\npath = "{folder / name}.gguf"\n' for name in NAMES)
    config.write_text(f"[server]\nbuiltin = false\n{models}")
    options = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
    where = ("--port", "0", "--state-dir", str(state_dir), "--config", str(config))
    return Launch("pilotlight", (command, "serve", *where, "--memory-budget", budget, *options), NAMES[0])


def _router(binary: str, folder: Path, settings: dict[str, int]) -> Launch:
    port = free_port()
    options = ("--models-dir", folder, "--models-max", 2, "-t", settings["threads"])
    sizes = ("-c", settings["context"], "-np", settings["parallel"], "--host", "127.0.0.1", "--port", port)
    return Launch("llama-server", (binary, *map(str, (*options, *sizes))), NAMES[0], port)


async def _charge(launch: Launch, state_dir: Path) -> int:
    """What Pilotlight charges for one of the models."""
    async with running(launch) as server, Admin(server, state_dir) as admin:
        charged: int = (await admin.load())["bytes_charged"]
        return charged


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask three models where two fit.")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--peer", help="a llama-server with the router mode")
    parser.add_argument("--shape", choices=SHAPES, default="smol-135m")
    parser.add_argument("--model", type=Path, help="a GGUF file instead of random weights")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--parallel", type=int, default=4)
    args = parser.parse_args()
    end_on_sigterm()
    folder = copies(args.model or ensure_model(args.shape))
    settings = {"threads": args.threads, "context": args.context, "parallel": args.parallel}
    load = Load(args.clients, args.requests, args.tokens)
    columns: dict[str, dict[str, float]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
            command = find_pilotlight(args.pilotlight)
            launch = _pilotlight(command, folder, Path(state), settings, "1TiB")
            budget = int(2.5 * asyncio.run(_charge(launch, Path(state))))
            launch = _pilotlight(command, folder, Path(state), settings, str(budget))
            ours = asyncio.run(measure(launch, load))
            of_budget = {"of the budget": ours[MOST] * MIB / budget}
            columns["pilotlight"] = {"budget MiB": budget / MIB} | ours | of_budget
        if args.peer:
            columns["llama-server"] = asyncio.run(measure(_router(args.peer, folder, settings), load))
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    print(_table(columns["pilotlight"], columns.get("llama-server", {})))


def _table(ours: dict[str, float], theirs: dict[str, float]) -> str:
    rows = [["figure", "pilotlight", "llama-server", "ratio", "target", ""]]
    for name, value in ours.items():
        target, other = TARGETS.get(name), theirs.get(name)
        ratio = f"{value / other:.2f}" if other else "-"
        verdict = target.verdict(value) if target else ""
        shown = "-" if other is None else number(other)
        rows.append([name, number(value), shown, ratio, str(target or ""), verdict])
    return render(rows)


if __name__ == "__main__":
    main()
