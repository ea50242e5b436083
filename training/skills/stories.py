"""Templated stories of about 150 words and single sentences: text to stream."""

from __future__ import annotations

from conversation import Exchange, roughen, table, turn
from words import NOUNS, Source

TEXTS: dict[str, str] = table("stories")
ASK_LONG = (
    "Tell me a story{}",
    "Tell me a long story{}",
    "Write a long story{}.",
    "Write a story{}",
    "I want a story{}",
    "Can you tell me a story{}?",
    "Write me a story{}, please",
    "Tell a bedtime story{}",
    "a long story{} please",
    "Write a 200 word story{}.",
    "Tell me a very long story{}.",
    "Write a long text{}",
    "Write a long tale{}.",
    "Tell me a fairy tale{}",
)
ASK_SHORT = (
    "Tell me a short story{}",
    "Write a short story{}.",
    "A very short story{}",
    "Write a three sentence story{}",
    "Tell me a tiny story{}",
    "Can you write a short story{}?",
)
ASK_SENTENCE = (
    "Write one sentence{}.",
    "Write a sentence{}",
    "Say something{}",
    "Give me a sentence{}",
    "One short sentence{}",
    "Describe in one sentence something{}",
    "Write a short sentence{}.",
)


def stories(source: Source) -> Exchange:
    """A long or short story, or one sentence, about a thing."""
    kind = source.random.random()
    named = source.chance(0.6)
    noun = (source.fresh(NOUNS) if source.chance(0.8) else source.invented()) if named else "fox"
    about = source.pick((f" about a {noun}", f" about the {noun}", f" of a {noun}")) if named else ""
    if kind < 0.4:
        form, answer = source.pick(ASK_LONG), TEXTS["story"]
    elif kind < 0.6:
        form, answer = source.pick(ASK_SHORT), TEXTS["short"]
    else:
        about = source.pick((f" about a {noun}", f" about the {noun}", f" about {noun}s"))
        form, answer = source.pick(ASK_SENTENCE), TEXTS["sentence"]
    question = form.format(about) if named else roughen(source, form.format(about))
    return turn(question, answer.format(n=noun), f"I write it with a {noun}.")
