"""A long conversation whose model is unloaded, and whose daemon restarts: what the next turn waits for."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import httpx

from admin import Admin
from client import CallFailed, Client, Message, Reply
from load import NUM_TURN_WORDS, WORDS
from models import SHAPES, ensure_model
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
from table import Target, against

NUM_ANSWERED = 16

TARGETS = {
    "after an unload, ratio": Target(0.25),
    "after a restart, ratio": Target(0.25),
}


class Conversation:
    """One that grows by a question and an answer at a time."""

    def __init__(self, num_words: int) -> None:
        self._num_words = num_words
        self._asked: list[Message] = []
        self._answer = ""

    async def turn(self, server: Server) -> Reply:
        """Ask the next question; the first one is the long one."""
        if self._asked:
            self._asked.append({"role": "assistant", "content": self._answer})
        count = NUM_TURN_WORDS if self._asked else self._num_words
        question = " ".join(random.Random(len(self._asked)).choices(WORDS, k=count))
        self._asked.append({"role": "user", "content": question})
        reply = await self.again(server)
        self._answer = reply.text
        return reply

    async def again(self, server: Server) -> Reply:
        """Ask the last question once more."""
        async with Client(server.url, server.model) as client:
            return await client.chat(self._asked, NUM_ANSWERED)


async def measure(launch: Launch, num_words: int, state: Path) -> dict[str, float]:
    """Seconds until the first token, each time with the model loaded before."""
    conversation = Conversation(num_words)
    async with running(launch) as server, Admin(server, state) as admin:
        await admin.load()
        await conversation.turn(server)
        at_once = await conversation.turn(server)
        started_s = time.perf_counter()
        await admin.unload()
        unload_s = time.perf_counter() - started_s
        await admin.load()
        unloaded = await conversation.turn(server)
    async with running(launch) as server, Admin(server, state) as admin:
        await admin.load()
        restarted = await conversation.turn(server)
    size = max(file.stat().st_size for file in (state / "conversations").iterdir())
    off = replace(launch, command=("env", "PILOTLIGHT_MEMORY_CONVERSATIONS=0", *launch.command))
    async with running(off) as server, Admin(server, state) as admin:
        await admin.load()
        anew = await conversation.again(server)
    return {
        "tokens restored": restarted.num_cached,
        "file MB": size / 1e6,
        "unload s": unload_s,
        "without a break s": at_once.ttft_s,
        "computed anew s": anew.ttft_s,
        "after an unload s": unloaded.ttft_s,
        "after a restart s": restarted.ttft_s,
        "after an unload, ratio": unloaded.ttft_s / anew.ttft_s,
        "after a restart, ratio": restarted.ttft_s / anew.ttft_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Unload a model in the middle of a conversation.")
    parser.add_argument("--pilotlight", help="the command; default: beside this Python, else on PATH")
    parser.add_argument("--shape", choices=SHAPES, default="llama-1b")
    parser.add_argument("--model", type=Path, help="a GGUF file or a folder instead of random weights")
    parser.add_argument("--words", type=int, default=2000, help="of the first question, about one token each")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    end_on_sigterm()
    settings = Settings(args.model or ensure_model(args.shape), args.threads, context=8192, num_parallel=4)
    try:
        with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as state:
            launch = pilotlight(find_pilotlight(args.pilotlight), Path(state), settings)
            figures = asyncio.run(measure(launch, args.words, Path(state)))
    except (ServerFailed, CallFailed, httpx.HTTPError) as error:
        sys.exit(f"error: {error}")
    print(against(figures, TARGETS))


if __name__ == "__main__":
    main()
