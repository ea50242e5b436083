"""A batch for the built-in model whose daemon is killed again and again and whose plug is pulled for a while,
and the same in peace.

Counts the answers to each line, and how long the whole takes. The laptop is a folder of files.
"""

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from servers import Launch, Server, ServerFailed, end_on_sigterm, find_pilotlight, pilotlight, running
from table import Target, number, render

ENDPOINT = "/v1/chat/completions"
LOOK_S = 0.05
OVER = ("completed", "failed", "expired", "cancelled")

SETTLE_S = 1.0
"""From the policy's word until what runs has been paused."""

TARGETS = {
    "lines answered on battery": Target(0),
    "lines without an answer": Target(0),
    "lines answered twice": Target(0),
    "lines that failed": Target(0),
}


@dataclass(frozen=True, slots=True)
class Laptop:
    """The folder that a daemon takes for its machine."""

    root: Path

    def plug(self, *, is_in: bool) -> None:
        battery = self.root / "sys/class/power_supply/BAT0"
        battery.mkdir(parents=True, exist_ok=True)
        for name, text in (("type", "Battery"), ("status", "Charging" if is_in else "Discharging")):
            part = battery / f"{name}.part"
            part.write_text(text)
            part.replace(battery / name)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to the daemon: kills, and, if there are any, a time on battery in the middle."""

    num_kills: int
    on_battery_s: float
    laptop: Laptop


async def batch(launch: Launch, num_lines: int, num_tokens: int, trouble: Trouble) -> dict[str, float]:
    """Kill the daemon whenever another share of the lines is answered; then count."""
    num_kills, on_battery = trouble.num_kills, 0
    shares = [num_lines * (kill + 1) // (num_kills + 1) for kill in range(num_kills)]
    started_s = time.perf_counter()
    batch_id = None
    for kill, share in enumerate(shares):
        async with running(launch) as server, _client(server) as client:
            batch_id = batch_id or await _submit(client, num_lines, num_tokens, server.model)
            await _until(client, batch_id, share)
            if kill == num_kills // 2:
                on_battery = await _unplugged(client, batch_id, trouble)
            os.kill(server.pid, signal.SIGKILL)
        if kill == num_kills // 2:
            async with running(launch) as server, _client(server) as client:
                on_battery += await _unplugged(client, batch_id, trouble)
                trouble.laptop.plug(is_in=True)
                os.kill(server.pid, signal.SIGKILL)
    async with running(launch) as server, _client(server) as client:
        batch_id = batch_id or await _submit(client, num_lines, num_tokens, server.model)
        done = await _until(client, batch_id)
        taken_s = time.perf_counter() - started_s
        answers = Counter([answer async for answer in _answers(client, done)])
    counts = done["request_counts"]
    return {
        "lines": num_lines,
        "kills": num_kills and num_kills + 1,
        "seconds, starts included": taken_s,
        "lines answered on battery": on_battery,
        "lines without an answer": num_lines - len(answers),
        "lines answered twice": sum(times > 1 for times in answers.values()),
        "lines that failed": counts["failed"],
        "tokens of answers": done["usage"]["output_tokens"],
    }


async def _unplugged(client: httpx.AsyncClient, batch_id: str, trouble: Trouble) -> int:
    """Lines that are answered though it is on battery, from when the policy has said that they wait."""
    trouble.laptop.plug(is_in=False)
    await _until(client, batch_id, waits=True)
    counts = []
    for pause_s in (SETTLE_S, trouble.on_battery_s):
        await asyncio.sleep(pause_s)
        counts.append((await _until(client, batch_id, 0))["request_counts"]["completed"])
    return int(counts[1] - counts[0])


def _client(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=60)


async def _submit(client: httpx.AsyncClient, num_lines: int, num_tokens: int, model: str) -> str:
    content = "".join(_lines(num_lines, num_tokens, model)).encode()
    form = {"data": {"purpose": "batch"}, "files": {"file": ("lines.jsonl", content)}}
    file = (await client.post("/v1/files", **form)).raise_for_status().json()  # type: ignore[arg-type]
    order = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    created: str = (await client.post("/v1/batches", json=order)).raise_for_status().json()["id"]
    return created


def _lines(num_lines: int, num_tokens: int, model: str) -> Iterator[str]:
    for line in range(num_lines):
        question = [{"role": "user", "content": f"Repeat after me: {line}"}]
        body = {"model": model, "messages": question, "max_tokens": num_tokens, "ignore_eos": True}
        yield json.dumps({"custom_id": f"r{line}", "method": "POST", "url": ENDPOINT, "body": body}) + "\n"


async def _until(
    client: httpx.AsyncClient, batch_id: str, num_answered: float = math.inf, *, waits: bool = False
) -> dict[str, Any]:
    """The batch once so many lines are answered, or it waits for the policy, or it is over."""
    while True:
        found: dict[str, Any] = (await client.get(f"/v1/batches/{batch_id}")).raise_for_status().json()
        is_so = found["request_counts"]["completed"] >= num_answered or (waits and "policy" in found)
        if is_so or found["status"] in OVER:
            return found
        await asyncio.sleep(LOOK_S)


async def _answers(client: httpx.AsyncClient, done: dict[str, Any]) -> AsyncIterator[str]:
    """The custom_id of each answer and each error."""
    for file_id in filter(None, (done["output_file_id"], done["error_file_id"])):
        for line in (await client.get(f"/v1/files/{file_id}/content")).text.splitlines():
            yield json.loads(line)["custom_id"]


def _table(figures: dict[str, dict[str, float]]) -> str:
    rows = [["figure", *figures, "target", ""]]
    killed = figures["killed"]
    for name, value in killed.items():
        target = TARGETS.get(name)
        verdict = target.verdict(value) if target else ""
        rows.append([name, *(number(each[name]) for each in figures.values()), str(target or ""), verdict])
    return render(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a batch while its daemon is killed and unplugged.")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument(
        "--on-battery", type=float, default=10, metavar="SECONDS", help="of each daemon in the middle"
    )
    args = parser.parse_args()
    end_on_sigterm()
    figures = {}
    try:
        for name, num_kills in (("killed", args.kills), ("in peace", 0)):
            with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
                laptop = Laptop(Path(state) / "laptop")
                laptop.plug(is_in=True)
                launch = pilotlight(find_pilotlight(args.pilotlight), Path(state))
                launch = replace(launch, command=(*launch.command, "--power-root", str(laptop.root)))
                trouble = Trouble(num_kills, args.on_battery, laptop)
                figures[name] = asyncio.run(batch(launch, args.lines, args.tokens, trouble))
        print(_table(figures))
    except (ServerFailed, httpx.HTTPError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
