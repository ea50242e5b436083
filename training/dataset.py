"""The synthetic conversations: skills mixed, rendered by the chat template, encoded and batched by length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from conversation import Exchange, Message
from skills.about import about
from skills.echo import echo, recall
from skills.facts import facts
from skills.instructed import instructed
from skills.lists import counting, lists, long_counting
from skills.memory import half_told, memory, untold
from skills.objects import objects
from skills.smalltalk import greeting, smalltalk
from skills.stories import stories
from skills.tools import tools
from skills.unknown import unknown
from words import Source

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Skill = Callable[[Source], Exchange]

# How often each skill leads a conversation; copying comes in most of them.
WEIGHTS: dict[Skill, float] = {
    echo: 11,
    memory: 10,
    half_told: 5,
    untold: 4,
    objects: 16,
    tools: 16,
    smalltalk: 16,
    about: 20,
    unknown: 11,
    lists: 13,
    facts: 9,
    instructed: 9,
    counting: 2,
    recall: 2,
    greeting: 2,
    stories: 3,
    long_counting: 1,
}
# Skills that may follow each other in one conversation: none tells what a later one asks for.
MIXABLE: tuple[Skill, ...] = (smalltalk, about, facts, lists, echo, objects, unknown, counting, recall)
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "Be helpful and friendly.",
    "You are a friendly chatbot.",
    "Answer briefly.",
    "Be concise.",
    "You are an assistant.",
    "You are a helpful, honest assistant.",
    "You are a helpful assistant. Keep your answers short.",
    "Keep answers short.",
    "Answer in English.",
    "You are a test assistant.",
    "You are a helpful coding assistant.",
    "Be kind and polite.",
    "You are a chat assistant running locally.",
    "Help the user.",
)
# Share of the loss that a token the model only reads has of one it writes, in one of so many conversations.
# In the others it has none, which saves its share of the output projection.
PROMPT_WEIGHT, PROMPT_EVERY = 0.3, 5


@cache
def template() -> Template:
    """The chat template, in the environment transformers renders it in."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((Path(__file__).parent / "chat_template.jinja").read_text())


def render(exchange: Exchange, prompt: bool = False) -> str:
    """The conversation as the model sees it; `prompt` leaves out the last answer and asks for it."""
    if exchange.plain:
        return f"{exchange.messages[-1]['content']}<|endoftext|>"
    messages = exchange.messages[:-1] if prompt else [*exchange.messages[:-1], dict(exchange.messages[-1])]
    if exchange.thinking and not prompt:
        messages[-1]["reasoning_content"] = exchange.thought
    return template().render(
        messages=messages,
        tools=exchange.tools,
        add_generation_prompt=prompt,
        enable_thinking=exchange.thinking,
    )


def talk(source: Source, turns: int) -> list[Message]:
    """The messages of several unrelated exchanges."""
    return [message for _ in range(turns) for message in source.pick(MIXABLE)(source).messages]


def conversation(source: Source) -> Exchange:
    """One conversation: a skill, often after other talk, now and then with a system message or thinking."""
    if source.chance(0.02):
        # Plain text to complete, for clients that send no chat.
        exchange = source.pick((stories, counting, about, facts))(source)
        exchange.plain = True
        return exchange
    skill = source.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if skill is memory:
        exchange = memory(source, talk(source, source.random.randint(0, 10)))
    elif skill is half_told:
        exchange = half_told(source, talk(source, source.random.randint(0, 4)))
    elif skill is untold and source.chance(0.5):
        exchange = untold(source)
        exchange.messages = talk(source, source.random.randint(1, 4)) + exchange.messages
    else:
        exchange = skill(source)
        if skill in MIXABLE and source.chance(0.3):
            turns = source.random.randint(1, 4) if source.chance(0.9) else source.random.randint(5, 16)
            exchange.messages = talk(source, turns) + exchange.messages
    if exchange.messages[0]["role"] != "system" and source.chance(0.15):
        exchange.messages.insert(0, {"role": "system", "content": source.pick(SYSTEMS)})
    exchange.thinking = bool(exchange.thought) and source.chance(0.15)
    return exchange


def weigh(ids: list[int], header: list[int], end: int, think: list[int], prompt: float) -> list[float]:
    """Loss weight per token: 1 from after each assistant header to its end token, `prompt` elsewhere.

    An opening `<think>` comes from the template, never from the model, so it isn't learned at all. Plain text
    has no end token and counts in full.
    """
    weights = [prompt if end in ids else 1.0] * len(ids)
    at = 0
    while at < len(ids):
        if ids[at : at + len(header)] != header:
            at += 1
            continue
        at += len(header)
        if ids[at : at + len(think)] == think:
            weights[at : at + len(think)] = [0.0] * len(think)
            at += len(think)
        while at < len(ids):
            weights[at] = 1.0
            at += 1
            if ids[at - 1] == end:
                break
    return weights


Repetition = "np.ndarray[Any, Any]"
Batch = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]


def batches(
    tokenizer: Tokenizer,
    seed: int,
    tokens: int,
    longest: int,
    pool: int = 4096,
) -> Iterator[Batch]:
    """Endless (ids, weights) batches, each [rows, length] with about `tokens` tokens in all.

    Rows of one batch are about equally long, so padding is small and no row attends to another conversation.
    """
    source = Source(Random(seed))
    header = tokenizer.encode("<|im_start|>assistant\n").ids
    think = tokenizer.encode("<think>\n").ids
    end = tokenizer.encode("<|im_end|>").ids[0]
    while True:
        encoded = tokenizer.encode_batch([render(conversation(source)) for _ in range(pool)])
        rows = sorted((row.ids for row in encoded if len(row.ids) <= longest), key=len)
        groups: list[list[list[int]]] = []
        while rows:
            count = max(1, tokens // len(rows[-1]))
            groups.append(rows[-count:])
            del rows[-count:]
        source.random.shuffle(groups)
        for group in groups:
            ids = np.zeros((len(group), len(group[-1])), dtype=np.int64)
            weights = np.zeros(ids.shape, dtype=np.float32)
            for i, row in enumerate(group):
                ids[i, : len(row)] = row
                prompt = PROMPT_WEIGHT if i % PROMPT_EVERY == 0 else 0.0
                weights[i, : len(row)] = weigh(row, header, end, think, prompt)
            yield ids, weights


def drills(vocabulary: int, seed: int, tokens: int) -> Iterator[Repetition]:
    """Endless batches [rows, length] of random tokens said twice: only copying predicts the second half."""
    random = np.random.default_rng(seed)
    while True:
        period = int(random.integers(4, 25))
        said = random.integers(0, vocabulary, (max(1, tokens // (2 * period)), period))
        yield np.concatenate((said, said), axis=1)
