"""Greetings, thanks, jokes and questions about the model itself."""

from __future__ import annotations

from conversation import Exchange, Intent, small_question, table, turn
from words import Source

INTENTS: dict[str, Intent] = table("smalltalk")
INTRODUCTIONS = (
    "Hi, I'm {}.",
    "Hello, my name is {}",
    "I am {}",
    "My name is {}.",
    "Hey, {} here!",
    "Hi! I'm {}, nice to meet you",
    "Call me {}",
    "This is {}.",
    "my name's {}",
    "Hello! I'm called {}.",
)


def smalltalk(source: Source) -> Exchange:
    """One turn of small talk."""
    thought = "This is small talk. I answer in a friendly and short way."
    return small_question(source, INTENTS[source.pick(list(INTENTS))], thought)


def greeting(source: Source) -> Exchange:
    """The user gives a name and is greeted by it."""
    name = source.name()
    question = source.pick(INTRODUCTIONS).format(name)
    answer = f"Nice to meet you, {name}! How can I help you?"
    return turn(question, answer, f"The user's name is {name}. I greet {name}.")
