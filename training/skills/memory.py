"""Remembering what the user told earlier in the conversation."""

from __future__ import annotations

from conversation import Exchange, Message, table, turn
from words import ADJECTIVES, Source

COLOURS = (
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "purple",
    "black",
    "white",
    "pink",
    "brown",
    "gray",
    "teal",
    "gold",
    "silver",
    "crimson",
)
# What is told, how it is acknowledged, how it is asked for later, and the answer.
KINDS = table("memory")


def thing(source: Source, kind: str) -> str:
    """Something to remember."""
    if kind in ("name", "pet"):
        return source.name()
    if kind == "number":
        return str(source.number(0, source.pick((99, 999, 9999, 99999))))
    if kind == "age":
        return str(source.number(10, 99))
    if kind == "colour":
        return source.pick(COLOURS)
    if kind == "city":
        return source.city()
    return source.word() if source.chance(0.8) else source.fresh(ADJECTIVES)


def telling(source: Source, told: dict[str, str]) -> list[Message]:
    """The user tells things, each acknowledged; `told` maps kinds to them."""
    messages: list[Message] = []
    for kind, item in told.items():
        reply = KINDS[kind]["reply"].format(item)
        statement = source.pick(KINDS[kind]["statements"]).format(item)
        messages += turn(statement, reply[0].upper() + reply[1:]).messages
    return messages


def memory(source: Source, between: list[Message] | None = None) -> Exchange:
    """Up to three things are told, other talk follows, then some of them are asked for."""
    kinds = source.random.sample(list(KINDS), source.random.choice((1, 1, 2, 3)))
    told = {kind: thing(source, kind) for kind in kinds}
    messages = telling(source, told) + (between or [])
    for kind in source.random.sample(kinds, source.random.randint(1, len(kinds))):
        question = source.pick(KINDS[kind]["questions"])
        messages += turn(question, KINDS[kind]["answer"].format(told[kind])).messages
    return Exchange(messages, f"The user told me: {told[kind]}.")


def missing(source: Source, kind: str) -> Exchange:
    """A question for something that was never told."""
    topic = {"word": "word", "colour": "favorite color", "pet": "pet's name"}.get(kind, kind)
    whose = "the" if kind in ("word", "number") else "your"
    question = source.pick(KINDS[kind]["questions"])
    return turn(question, f"You haven't told me {whose} {topic} yet.", "The user has not told me that.")


def untold(source: Source) -> Exchange:
    """The user asks for something, and has told nothing."""
    return missing(source, source.pick(list(KINDS)))


def half_told(source: Source, between: list[Message] | None = None) -> Exchange:
    """One or two things are told, and another is asked for, perhaps behind one that was told."""
    *kinds, untold_kind = source.random.sample(list(KINDS), source.random.choice((2, 2, 3)))
    told = {kind: thing(source, kind) for kind in kinds}
    exchange = missing(source, untold_kind)
    before = telling(source, told) + (between or [])
    if source.chance(0.4):
        kind = source.pick(kinds)
        question = source.pick(KINDS[kind]["questions"])
        before += turn(question, KINDS[kind]["answer"].format(told[kind])).messages
    exchange.messages = before + exchange.messages
    return exchange
