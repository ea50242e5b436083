"""Obeying a short system prompt."""

from __future__ import annotations

from conversation import Exchange, phrasing, turn
from skills.about import about
from skills.facts import facts
from skills.objects import objects
from skills.smalltalk import INTENTS, smalltalk
from words import Source

PERSONAS = (
    "Your name is {}.",
    "You are {}.",
    "You are {}, a helpful assistant.",
    "Your name is {}. Be friendly.",
    "You are a bot called {}.",
    "You are called {}.",
    "Act as {}.",
    "You are an assistant named {}.",
)
ASK_NAME = (
    "What is your name?",
    "Who are you?",
    "what's your name?",
    "Who am I talking to?",
    "Tell me your name",
    "What should I call you?",
    "Introduce yourself",
)
ONE_WORD = (
    "Answer with one word.",
    "Answer in one word.",
    "Reply with a single word.",
    "One word answers only.",
    "Always answer with only one word.",
)
FIXED_WORD = (
    "Always answer with the word {}.",
    "Answer every question with {}.",
    "Only ever say {}.",
    "Reply only with '{}'.",
    "Whatever the user says, reply {}.",
)
LOUD = (
    "Answer in upper case.",
    "Write in capital letters.",
    "SHOUT every answer in capitals.",
    "Use only upper case.",
)


def with_system(system: str, exchange: Exchange) -> Exchange:
    """The exchange led by a system message."""
    exchange.messages.insert(0, {"role": "system", "content": system})
    return exchange


def instructed(source: Source) -> Exchange:
    """A persona with a name, one-word answers, upper case, a fixed word to say, or JSON."""
    kind = source.random.random()
    if kind < 0.35:
        name = source.name()
        system = source.pick(PERSONAS).format(name)
        return with_system(system, turn(source.pick(ASK_NAME), f"I'm {name}.", f"My name is {name}."))
    if kind < 0.6:
        return with_system(source.pick(ONE_WORD), facts(source, brief=True))
    if kind < 0.75:
        word = source.word()
        system = source.pick(FIXED_WORD).format(word)
        exchange = source.pick((smalltalk, about, facts))(source)
        exchange.messages[-1]["content"] = word
        exchange.accepted = ()
        exchange.thought = f"I must answer with {word}."
        return with_system(system, exchange)
    if kind < 0.87:
        system = source.pick(LOUD)
        intent = INTENTS[source.pick(("hello", "thanks", "test", "goodbye", "how_are_you"))]
        loud = tuple(answer.upper() for answer in intent["answers"])
        question = phrasing(source, intent)
        return with_system(system, turn(question, source.pick(loud), "I answer in capitals.", loud))
    system = source.pick(("Answer in JSON.", "You always answer with JSON.", "Reply only with JSON."))
    return with_system(system, objects(source))
