"""Clients of every kind for minutes on end: what they meet, and what stays behind.

Three models where two fit, and the built-in one, are asked, left in the middle, unloaded and reloaded, and
their workers killed, at random, in phases. After each all has to come to rest. It has no peer; it prints what
nobody should have met.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from admin import LOAD_LIMIT_S
from models import SHAPES, ensure_model
from processes import children_pss, rss_mb
from residency import NAMES, copies
from servers import Launch, Server, ServerFailed, admin_key, end_on_sigterm, find_pilotlight, running
from table import Target, against

PHASE_S = 30.0
REST_S = 300.0
"""A batch waits until its model may be loaded: what people have just used is not unloaded for it."""

CLOSE_S = 1.0
"""For the daemon to close the connections of a phase."""

KILL_S = 30.0
"""So long after a worker was killed, answers may say so."""

QUESTIONS = ("What can you do?", "Say the word garden.", "My name is Ada. What is my name?")
WORDS = ("time", "river", "stone", "light", "paper", "garden", "window", "music", "letter", "forest")
MALFORMED = (b"{", b"\xff", b'{"model": 3}', b"[" * 2000, b'{"model":"pilot","messages":[],"nope":1}')

TARGETS = {
    "met what nobody should": Target(0),
    "daemon RSS, growth %": Target(10),
    "descriptors more": Target(0),
    "pilot's words changed": Target(0),
}

Body = dict[str, Any]


@dataclass(slots=True)
class Met:
    """What became of requests, by what they were; and all that the API does not promise."""

    counts: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    words: dict[str, set[str]] = field(default_factory=dict)
    """Of the built-in model, to each question: greedy, so they are the same whatever else runs."""
    killed_s: float = -KILL_S

    def expect(self, what: str, is_so: bool, found: object) -> None:
        if not is_so:
            self.odd.append(f"{what}: {found!r}"[:500])

    def is_answer(self, what: str, response: httpx.Response) -> bool:
        """Whether there is one; a refusal has to be one that may come."""
        self.counts[f"{what} {response.status_code}"] += 1
        if response.status_code == 200:
            return True
        is_busy = response.status_code == httpx.codes.TOO_MANY_REQUESTS
        self.expect(what, "error" in response.text and (is_busy or self.is_excused), response.text)
        return False

    @property
    def is_excused(self) -> bool:
        """A worker has just been killed."""
        return time.monotonic() - self.killed_s < KILL_S


@dataclass(frozen=True, slots=True)
class Client:
    """One of many: does something at random, again and again."""

    server: Server
    config: Path
    http: httpx.AsyncClient
    key: dict[str, str]
    met: Met
    random: random.Random

    async def visit(self, is_calm: bool, kills: bool) -> None:
        """One thing. In a calm phase only what cannot fail."""
        ways: dict[Callable[[], Awaitable[None]], float] = {
            self._stream: 30,
            self._whole: 20,
            self._chat: 10,
            self._ask_pilot: 5,
            self._malformed: 3,
        }
        if not is_calm:
            ways |= {self._batch: 1, self._unload: 1, self._reload: 0.4}
            if kills:
                ways[self._kill] = 0.3
        (way,) = self.random.choices(list(ways), list(ways.values()))
        await way()

    def _words(self, count: int) -> str:
        return " ".join(self.random.choices(WORDS, k=count))

    def _body(self) -> Body:
        pick = self.random.choice
        prompt = self._words(pick((1, 3, 10, 40, 150, 400)))
        return {
            "model": pick(NAMES),
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": pick((1, 5, 20, 60)),
            "temperature": pick((0, 0.7, 1.5)),
            "service_tier": pick(("auto", "auto", "flex")),
            "n": pick((1, 1, 1, 1, 2, 3)),
            "stop": pick((None, None, ["a"])),
            "ignore_eos": pick((False, True)),
        }

    async def _stream(self) -> None:
        """To its end, or not."""
        body = self._body() | {"stream": True, "stream_options": {"include_usage": True}}
        num_lines = self.random.choice((0, 3, 30, sys.maxsize, sys.maxsize, sys.maxsize))
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                await response.aread()
            if not self.met.is_answer("stream", response):
                return
            events = []
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    events.append(line.removeprefix("data: "))
                if len(events) > num_lines:
                    return
        self._judge(body, events)

    def _judge(self, body: Body, events: list[str]) -> None:
        """All of a stream."""
        if not events:
            self.met.expect("a stream", False, body)
            return
        if "error" in json.loads(events[-1] if events[-1] != "[DONE]" else "{}"):
            self.met.expect("an error in a stream", self.met.is_excused, events[-1])
            return
        self.met.expect("[DONE]", events.pop() == "[DONE]", body)
        chunks = [json.loads(event) for event in events]
        ends = [
            (choice["index"], choice["finish_reason"])
            for chunk in chunks
            for choice in chunk["choices"]
            if choice["finish_reason"]
        ]
        self.met.expect("one end each", sorted(index for index, _ in ends) == list(range(body["n"])), ends)
        usage = chunks[-1]["usage"]
        self._judge_usage(body, usage, [reason for _, reason in ends])

    def _judge_usage(self, body: Body, usage: Body, reasons: list[str]) -> None:
        most = body["max_tokens"] * body["n"]
        is_full = usage["completion_tokens"] == most
        is_right = is_full if set(reasons) == {"length"} else usage["completion_tokens"] <= most
        is_right &= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]
        self.met.expect("usage", is_right, (usage, reasons))

    async def _whole(self) -> None:
        """Who waits too short a time has left."""
        body = self._body()
        limit_s = self.random.choice((LOAD_LIMIT_S, LOAD_LIMIT_S, self.random.random()))
        try:
            response = await self.http.post("/v1/chat/completions", json=body, timeout=limit_s)
        except httpx.TimeoutException:
            self.met.expect("an answer", limit_s < LOAD_LIMIT_S, body)
            return
        if self.met.is_answer("whole", response):
            said = response.json()
            reasons = [choice["finish_reason"] for choice in said["choices"]]
            self.met.expect("all choices", len(reasons) == body["n"], said)
            self._judge_usage(body, said["usage"], reasons)

    async def _chat(self) -> None:
        """Some turns."""
        body: Body = {"model": self.random.choice(NAMES), "max_tokens": 16, "n": 1, "messages": []}
        for _ in range(self.random.choice((2, 4, 7))):
            body["messages"].append({"role": "user", "content": self._words(15)})
            response = await self.http.post("/v1/chat/completions", json=body)
            if not self.met.is_answer("turn", response):
                return
            said = response.json()
            self._judge_usage(body, said["usage"], [said["choices"][0]["finish_reason"]])
            body["messages"].append(said["choices"][0]["message"])

    async def _ask_pilot(self) -> None:
        question = self.random.choice(QUESTIONS)
        body = {"model": "pilot", "messages": [{"role": "user", "content": question}], "temperature": 0}
        response = await self.http.post("/v1/chat/completions", json=body)
        if self.met.is_answer("pilot", response):
            words = response.json()["choices"][0]["message"]["content"]
            self.met.words.setdefault(question, set()).add(words)

    async def _malformed(self) -> None:
        raw = self.random.choice(MALFORMED)
        response = await self.http.post("/v1/chat/completions", content=raw)
        is_told = response.is_client_error and "error" in response.text
        self.met.expect("a refusal", is_told, (raw[:40], response.text))

    async def _batch(self) -> None:
        """Some are cancelled."""
        bodies = [self._body() for _ in range(self.random.choice((1, 5, 20)))]
        for body in bodies:
            del body["service_tier"]
        line = {"method": "POST", "url": "/v1/chat/completions"}
        lines = [json.dumps({"custom_id": str(n), **line, "body": body}) for n, body in enumerate(bodies)]
        files = {"file": ("lines.jsonl", "\n".join(lines)), "purpose": (None, "batch")}
        uploaded = await self.http.post("/v1/files", files=files)
        if self.met.is_answer("upload", uploaded):
            asked = {
                "input_file_id": uploaded.json()["id"],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            }
            made = await self.http.post("/v1/batches", json=asked)
            if self.met.is_answer("batch", made) and self.random.random() < 0.2:
                await self.http.post(f"/v1/batches/{made.json()['id']}/cancel")

    async def _unload(self) -> None:
        body = {"model": self.random.choice(NAMES)}
        self.met.is_answer(
            "unload", await self.http.post("/admin/models/unload", json=body, headers=self.key)
        )

    async def _reload(self) -> None:
        """With the models another context."""
        text, context = self.config.read_text(), self.random.choice((2048, 1024))
        self.config.write_text(re.sub(r"context = \d+", f"context = {context}", text))
        self.met.is_answer("reload", await self.http.post("/admin/reload", headers=self.key))

    async def _kill(self) -> None:
        if workers := list(children_pss(self.server.pid)):
            self.met.killed_s = time.monotonic()
            self.met.counts["workers killed"] += 1
            os.kill(self.random.choice(workers), signal.SIGKILL)


async def soak(
    launch: Launch, config: Path, state: Path, args: argparse.Namespace
) -> tuple[Met, dict[str, float]]:
    """All phases: what was met, and figures. What the daemon holds counts from the end of the first one."""
    met, numbers, looks = Met(), random.Random(args.seed), []
    async with running(launch) as server:
        key, process = admin_key(state), psutil.Process(server.pid)
        until_s = time.monotonic() + 60 * args.minutes
        while time.monotonic() < until_s or len(looks) < 2:
            end_s = time.monotonic() + PHASE_S
            async with _connections(server) as http:
                clients = [
                    Client(server, config, http, key, met, random.Random(numbers.random()))
                    for _ in range(args.clients)
                ]
                await asyncio.gather(*(_visit(client, len(looks), end_s) for client in clients))
                await _rest(http, met)
            await asyncio.sleep(CLOSE_S)
            looks.append((rss_mb(server.pid), process.num_fds()))
            print(f"phase {len(looks)}: {sum(met.counts.values())} answers, {looks[-1][0]:.1f} MB")
    (before_mb, before_fds), (after_mb, after_fds) = looks[0], looks[-1]
    return met, {
        **met.counts,
        "met what nobody should": len(met.odd),
        "daemon RSS, growth %": (after_mb / before_mb - 1) * 100,
        "descriptors more": after_fds - before_fds,
        "pilot's words changed": sum(len(words) - 1 for words in met.words.values()),
    }


def _connections(server: Server) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=server.url, timeout=LOAD_LIMIT_S, limits=limits)


async def _visit(client: Client, phase: int, end_s: float) -> None:
    while time.monotonic() < end_s:
        try:
            await client.visit(is_calm=phase % 3 == 0, kills=phase % 3 == 2)
        except httpx.HTTPError as error:
            client.met.odd.append(repr(error))


async def _rest(http: httpx.AsyncClient, met: Met) -> None:
    """Nothing runs or waits, and every batch is over."""
    deadline_s, busy = time.monotonic() + REST_S, ["?"]
    while busy and time.monotonic() < deadline_s:
        await asyncio.sleep(0.5)
        models = (await http.get("/v1/models")).json()["data"]
        batches = (await http.get("/v1/batches", params={"limit": 100})).json()["data"]
        busy = [model["id"] for model in models if model["active"] or model["queued"]]
        busy += [
            batch["id"] for batch in batches if batch["status"] in ("in_progress", "cancelling", "validating")
        ]
    met.expect("rest", not busy, busy)
    for batch in batches:
        counts = batch["request_counts"]
        is_whole = batch["status"] == "cancelled" or counts["completed"] == counts["total"]
        met.expect("every line answered", is_whole or met.is_excused, batch)


def _launch(command: str, model: Path, config: Path, state: Path, budget: str) -> Launch:
    folder = copies(model)
    models = "".join(f'[[model]]\nname = "{name}"\npath = "{folder / name}.gguf"\n' for name in NAMES)
    config.write_text(f"[defaults]\ncontext = 2048\nparallel = 4\n{models}")
    where = ("--port", "0", "--state-dir", str(state), "--config", str(config), "--memory-budget", budget)
    return Launch("pilotlight", (command, "serve", *where), NAMES[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask, leave, reload and kill, for minutes on end.")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--shape", choices=SHAPES, default="micro")
    parser.add_argument("--budget", default="400MiB", help="room for two of the three models")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    end_on_sigterm()
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as folder:
            state, config = Path(folder), Path(folder) / "models.toml"
            model = ensure_model(args.shape, vocab=None)
            launch = _launch(find_pilotlight(args.pilotlight), model, config, state, args.budget)
            met, figures = asyncio.run(soak(launch, config, state, args))
    except (ServerFailed, httpx.HTTPError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print("\n".join(met.odd), against(figures, TARGETS), sep="\n")


if __name__ == "__main__":
    main()
