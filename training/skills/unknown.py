"""Honest answers to what a model of this size cannot know."""

from __future__ import annotations

from conversation import Exchange, patterned, roughen, table, turn
from words import ADJECTIVES, NOUNS, VERBS, Source

PHRASES = table("unknown")
THOUGHT = "I don't know this. I say so and don't guess."


def topic(source: Source) -> str:
    """Something to ask about; training makes most up, so that any unfamiliar one is beyond the model."""
    if source.held_out or source.chance(0.4):
        return source.fresh(PHRASES["topics"])
    noun, adjective = source.fresh(NOUNS), source.fresh(ADJECTIVES)
    return source.pick(
        (
            noun + "s",
            f"{adjective} {noun}s",
            source.invented(),
            f"the {adjective} {noun}",
            f"the {noun} of {source.city()}",
            f"{noun}s and {source.fresh(NOUNS)}s",
            source.city(),
            f"{source.invented()} {noun}s",
            f"the {source.invented()} {noun}",
        )
    )


def fill(source: Source, form: str) -> str:
    """A form with its places filled, as the head of the TOML file explains them."""
    return form.format(
        t=topic(source),
        u=topic(source),
        c=source.city(),
        d=source.city(),
        p=source.name(),
        s=source.invented().capitalize(),
        v=source.fresh(VERBS),
        n=source.fresh(NOUNS),
        m=source.fresh(NOUNS),
        a=source.fresh(ADJECTIVES),
        i=source.number(13, 2099),
        j=source.number(13, 999),
        x=source.invented(),
    )


def unknown(source: Source) -> Exchange:
    """A question beyond the model, or now and then a statement that asks for nothing."""
    if source.chance(0.1):
        statement = fill(source, source.fresh(PHRASES["statements"]))
        return turn(roughen(source, statement), "Noted.", "This is no question.")
    form = source.fresh(PHRASES["about_topics" if source.chance(0.35) else "others"])
    if not source.held_out and source.chance(0.55):
        form = patterned(source, PHRASES["patterns"], PHRASES["about_topics"][4::5] + PHRASES["others"][4::5])
    question = roughen(source, fill(source, form))
    return turn(question, source.pick(PHRASES["answers"]), THOUGHT, tuple(PHRASES["answers"]))
