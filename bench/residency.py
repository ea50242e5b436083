"""Three models where two fit: asks them in random order, and watches what their workers hold together.

Pilotlight keeps a budget in bytes; llama-server's router, the peer, a number of models.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from client import CallFailed, Client
from models import SHAPES, WORK, ensure_model
from processes import MIB, children_pss
from servers import (
    Launch,
    Server,
    ServerFailed,
    admin_key,
    end_on_sigterm,
    find_pilotlight,
    free_port,
    running,
)
from table import number, render

NAMES = ("first", "second", "third")
SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """Who asks how much."""

    num_clients: int
    num_requests: int
    num_tokens: int


@dataclass(slots=True)
class Watch:
    """The sum of the workers' PSS, sampled while they work."""

    pid: int
    sums: list[int] = field(default_factory=list)

    def sample(self) -> None:
        self.sums.append(children_pss(self.pid))


@contextmanager
def watching(pid: int) -> Iterator[Watch]:
    """In a thread of its own, so that clients are not late."""
    watch, is_over = Watch(pid), threading.Event()

    def run() -> None:
        while not is_over.wait(SAMPLE_S):
            watch.sample()

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
            "seconds": asyncio.get_running_loop().time() - started_s,
            "wait p50 s": statistics.median(waits),
            "wait p95 s": waits[int(0.95 * len(waits))],
            "wait worst s": waits[-1],
            "workers' PSS, most, MiB": max(watch.sums) / MIB,
            "samples": len(watch.sums),
            **(_counted(server) if launch.name == "pilotlight" else {}),
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


def _counted(server: Server) -> dict[str, float]:
    """Loads and evictions, as Pilotlight tells."""
    figures = {"loads": 0.0, "evictions": 0.0}
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        for name in figures:
            if line.startswith(f"pilotlight_{name}_total{{"):
                figures[name] += float(line.split()[-1])
    return figures


def _copies(model: Path) -> Path:
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
    async with running(launch) as server, httpx.AsyncClient(timeout=120) as client:
        client.headers |= admin_key(state_dir)
        answer = await client.post(f"{server.url}/admin/models/load", json={"model": NAMES[0]})
        charged: int = answer.raise_for_status().json()["bytes_charged"]
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
    folder = _copies(args.model or ensure_model(args.shape))
    settings = {"threads": args.threads, "context": args.context, "parallel": args.parallel}
    load = Load(args.clients, args.requests, args.tokens)
    columns: dict[str, dict[str, float]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
            command = find_pilotlight(args.pilotlight)
            launch = _pilotlight(command, folder, Path(state), settings, "1TiB")
            budget = int(2.5 * asyncio.run(_charge(launch, Path(state))))
            launch = _pilotlight(command, folder, Path(state), settings, str(budget))
            columns["pilotlight"] = {"budget MiB": budget / MIB} | asyncio.run(measure(launch, load))
        if args.peer:
            columns["llama-server"] = asyncio.run(measure(_router(args.peer, folder, settings), load))
    except (ServerFailed, CallFailed) as error:
        sys.exit(f"error: {error}")
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    rows = [[name, *(_shown(figures, name) for figures in columns.values())] for name in names]
    print(render([["figure", *columns], *rows]))


def _shown(figures: dict[str, float], name: str) -> str:
    return number(figures[name]) if name in figures else "-"


if __name__ == "__main__":
    main()
