"""The load generator: nine scenarios against one running server, each giving named figures.

It knows the HTTP API and the server's process id, not which server it is.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace

from client import CallFailed, Client, Message, Reply
from processes import cpu_s, pss_mib

Figures = dict[str, float]

WORDS = (
    *("time", "river", "stone", "light", "paper", "garden", "window", "music", "letter"),
    *("forest", "number", "silver", "orange", "market", "bridge", "winter", "story", "travel"),
)
NUM_PROMPT_WORDS = 64
MIXED_WORDS = (256, 16, 64, 128, 16, 32, 192, 64)
NUM_SYSTEM_WORDS = 400
NUM_TURN_WORDS = 20
NUM_TURNS = 4
TURN_TOKENS = 16
READING_S = 2.0  # Nobody reads an answer and writes the next question faster.
WARM_UP_CALLS = 10
NUM_SPARSE_CALLS = 20
SPARSE_S = 0.2
NUM_BUSY_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of each scenario is run."""

    num_calls: int
    num_tokens: int
    num_single: int
    num_concurrent: int


# Tokens of a micro model take a millisecond, so much of them is needed for a steady figure.
MICRO_PLAN = Plan(num_calls=300, num_tokens=256, num_single=5, num_concurrent=3)
REAL_PLAN = Plan(num_calls=30, num_tokens=64, num_single=3, num_concurrent=1)


@dataclass(frozen=True, slots=True)
class Load:
    """One server, and the round that makes its prompts fresh: the same round, the same prompts."""

    url: str
    model: str
    pid: int
    plan: Plan
    round: int = 0

    def client(self) -> Client:
        return Client(self.url, self.model)

    def words(self, num_words: int, *place: object) -> str:
        """Words that no other place in this round and no other round gets."""
        source = random.Random(repr((self.round, *place)))
        return " ".join(source.choices(WORDS, k=num_words))


async def measure(load: Load, scenarios: Sequence[str]) -> Figures:
    """Warm the server up, then run the scenarios one after another; raises CallFailed."""
    async with load.client() as client:
        await client.chat(_ask("warm up"), 8)
    figures: Figures = {}
    for name in scenarios:
        figures |= await SCENARIOS[name](load)
    return figures


async def overhead(load: Load) -> Figures:
    """One-token chats without a pause: what the server adds to the model."""
    return await _calls(load, "overhead", load.plan.num_calls, pause_s=0)


async def sparse(load: Load) -> Figures:
    """The same as a person's tools ask: now and then, when the server's threads have gone to sleep."""
    return await _calls(load, "sparse", NUM_SPARSE_CALLS, SPARSE_S)


async def _calls(load: Load, name: str, num_calls: int, pause_s: float) -> Figures:
    """Non-streamed on one connection, with a pause before each."""
    times: list[float] = []
    async with load.client() as client:
        for _ in range(WARM_UP_CALLS):
            await client.chat(_ask("hi"), 1, is_streamed=False)
        spent_s = cpu_s(load.pid)
        for _ in range(num_calls):
            if pause_s:
                await asyncio.sleep(pause_s)
            times.append((await client.chat(_ask("hi"), 1, is_streamed=False)).total_s)
        spent_s = cpu_s(load.pid) - spent_s
    return {
        f"{name} p50 ms": _ms(statistics.median(times)),
        f"{name} p95 ms": _ms(_quantile(times, 0.95)),
        f"{name} CPU ms/call": _ms(spent_s / num_calls),
    }


async def one_stream(load: Load) -> Figures:
    """One stream at a time."""
    spent_s = cpu_s(load.pid)
    async with load.client() as client:
        replies = [
            await client.chat(_ask(load.words(NUM_PROMPT_WORDS, "single", number)), load.plan.num_tokens)
            for number in range(load.plan.num_single)
        ]
    spent_s = cpu_s(load.pid) - spent_s
    return {
        "1 stream tok/s": statistics.median(reply.tokens_per_s for reply in replies),
        "1 stream TTFT ms": _ms(statistics.median(reply.ttft_s for reply in replies)),
        **_gaps("1 stream", replies),
        "1 stream CPU ms/tok": _ms(spent_s / sum(reply.num_tokens for reply in replies)),
    }


async def concurrent(load: Load) -> Figures:
    """4 and 8 streams at once; the rate is all their tokens over the time until the last one ends."""
    return await _streams(load, 4) | await _streams(load, 8)


async def mixed(load: Load) -> Figures:
    """Eight streams at once with prompts of different lengths: who waits for whom."""
    return await _crowd(load, "mixed", MIXED_WORDS)


async def batching(load: Load) -> Figures:
    """One stream and eight at once with prompts of one word: decoding is nearly all.

    Rates are of the whole time, for a server may hold back its first text.
    """
    alone, together = [await _rate(load, num_streams) for num_streams in (1, 8)]
    return {
        "1 short prompt tok/s": alone,
        "8 short prompts tok/s": together,
        "8 / 1 short prompts": together / alone,
    }


async def _rate(load: Load, num_streams: int) -> float:
    """Tokens per second of streams that begin together; raises CallFailed."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(load.client()) for _ in range(num_streams)]
        prompts = [_ask(load.words(1, "short", num_streams, number)) for number in range(num_streams)]
        calls = [
            client.chat(prompt, load.plan.num_tokens) for client, prompt in zip(clients, prompts, strict=True)
        ]
        started_s = time.perf_counter()
        replies = await asyncio.gather(*calls)
        return sum(reply.num_tokens for reply in replies) / (time.perf_counter() - started_s)


async def busy(load: Load) -> Figures:
    """One and four streams beside a program that keeps every processor busy, as a compiler does."""
    short = replace(load, plan=replace(load.plan, num_tokens=NUM_BUSY_TOKENS))
    with _busy_processors():
        figures = {num: await _streams(short, num) for num in (1, 4)}
    return {f"busy, {name}": value for found in figures.values() for name, value in found.items()}


@contextmanager
def _busy_processors() -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(len(os.sched_getaffinity(0))):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


async def prefix(load: Load) -> Figures:
    """Chats of four turns under a long system prompt: later turns cost little where prefixes are kept.

    One with a person, who reads each answer before going on, and one with a program, which goes on at once.
    """
    person = await _chat(load, "chat", READING_S)
    program = await _chat(load, "program's chat", 0.0)
    return person | program


async def _chat(load: Load, name: str, pause_s: float) -> Figures:
    messages: list[Message] = [{"role": "system", "content": load.words(NUM_SYSTEM_WORDS, name, "system")}]
    figures: Figures = {}
    for turn in range(1, NUM_TURNS + 1):
        messages += _ask(load.words(NUM_TURN_WORDS, name, turn))
        async with load.client() as client:
            reply = await client.chat(messages, TURN_TOKENS)
        messages.append({"role": "assistant", "content": reply.text})
        figures[f"{name} turn {turn} TTFT ms"] = _ms(reply.ttft_s)
        figures[f"{name} turn {turn} cached tok"] = reply.num_cached
        await asyncio.sleep(pause_s)
    return figures


async def memory(load: Load) -> Figures:
    """The process tree, after all the work before it."""
    return {"memory PSS MiB": pss_mib(load.pid)}


SCENARIOS: dict[str, Callable[[Load], Awaitable[Figures]]] = {
    "overhead": overhead,
    "sparse": sparse,
    "stream1": one_stream,
    "conc": concurrent,
    "mixed": mixed,
    "batch": batching,
    "busy": busy,
    "prefix": prefix,
    "memory": memory,
}


async def _streams(load: Load, num_streams: int) -> Figures:
    name = f"{num_streams} stream{'s' if num_streams > 1 else ''}"
    return await _crowd(load, name, [NUM_PROMPT_WORDS] * num_streams)


async def _crowd(load: Load, name: str, prompts_words: Sequence[int]) -> Figures:
    """Streams that begin together, with prompts of so many words."""
    rates: list[float] = []
    replies: list[Reply] = []
    failures: list[CallFailed] = []
    spent_s = cpu_s(load.pid)
    for repeat in range(load.plan.num_concurrent):
        prompts = [load.words(words, name, repeat, i) for i, words in enumerate(prompts_words)]
        started_s = time.perf_counter()
        outcomes = await asyncio.gather(*(_stream(load, prompt) for prompt in prompts))
        took_s = time.perf_counter() - started_s
        failures += [outcome for outcome in outcomes if isinstance(outcome, CallFailed)]
        arrived = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        rates.append(sum(reply.num_tokens for reply in arrived) / took_s)
        replies += arrived
    spent_s = cpu_s(load.pid) - spent_s
    if not replies:
        raise CallFailed(f"all of {name} failed; the first: {failures[0]}")
    return {
        f"{name} tok/s": statistics.median(rates),
        f"{name} TTFT p50 ms": _ms(statistics.median(reply.ttft_s for reply in replies)),
        f"{name} TTFT max ms": _ms(max(reply.ttft_s for reply in replies)),
        **_gaps(name, replies),
        f"{name} CPU ms/tok": _ms(spent_s / sum(reply.num_tokens for reply in replies)),
        f"{name} errors": len(failures),
    }


async def _stream(load: Load, prompt: str) -> Reply | CallFailed:
    """One of many: its failure is counted and must not end the others."""
    try:
        async with load.client() as client:
            reply = await client.chat(_ask(prompt), load.plan.num_tokens)
            if not reply.times_s:
                raise CallFailed("the answer streamed no text")
            return reply
    except CallFailed as failure:
        return failure


def _gaps(name: str, replies: list[Reply]) -> Figures:
    gaps = [gap for reply in replies for gap in reply.gaps_s]
    if not gaps:
        return {}
    return {
        f"{name} ITL p50 ms": _ms(statistics.median(gaps)),
        f"{name} ITL p99 ms": _ms(_quantile(gaps, 0.99)),
    }


def _ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _ms(seconds: float) -> float:
    return seconds * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Put load on a running OpenAI-compatible server.")
    parser.add_argument("url", help="such as http://127.0.0.1:8710")
    parser.add_argument("model")
    parser.add_argument("pid", type=int, help="the server's process, whose tree is measured")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument(
        "--micro", action="store_true", help="the amounts that suit a model of the micro shape"
    )
    parser.add_argument("--round", type=int, default=0, help="another number, other prompts")
    args = parser.parse_args()
    load = Load(args.url, args.model, args.pid, MICRO_PLAN if args.micro else REAL_PLAN, args.round)
    print(json.dumps(asyncio.run(measure(load, args.scenarios)), indent=2))


if __name__ == "__main__":
    main()
