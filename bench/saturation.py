"""Background streams that never pause, on any OpenAI-compatible server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from client import Message
from load import Load

NUM_PROMPT_WORDS = 64


@dataclass(slots=True)
class Streams:
    """What they got so far, of answers of so many tokens that have ended."""

    tokens_each: int
    num_tokens: int = 0


@asynccontextmanager
async def saturated(load: Load, num_streams: int, tokens_each: int) -> AsyncIterator[Streams]:
    """While this lasts, so many clients ask again and again; from the moment when all of them are served."""
    streams = Streams(tokens_each)
    served = [asyncio.Event() for _ in range(num_streams)]
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(_ask_forever(load, n, event, streams)) for n, event in enumerate(served)]
        for event in served:
            await event.wait()
        yield streams
        for task in asking:
            task.cancel()


async def _ask_forever(load: Load, stream: int, served: asyncio.Event, streams: Streams) -> None:
    async with load.client() as client:
        # Short, so that all are served soon; the answers after it saturate the machine.
        await client.chat(ask(load.words(NUM_PROMPT_WORDS, stream)), 4, tier="flex")
        served.set()
        turn = 0
        while True:
            turn += 1
            prompt = load.words(NUM_PROMPT_WORDS, stream, turn)
            reply = await client.chat(ask(prompt), streams.tokens_each, tier="flex")
            streams.num_tokens += reply.num_tokens


def ask(text: str) -> list[Message]:
    """The messages of a chat that begins."""
    return [{"role": "user", "content": text}]
