"""True facts about Pilotlight and how it is used."""

from __future__ import annotations

from conversation import Exchange, Intent, small_question, table
from words import Source

INTENTS: dict[str, Intent] = table("about")


def about(source: Source) -> Exchange:
    """One question about Pilotlight."""
    thought = "This is a question about Pilotlight. I know the answer and give it in short."
    return small_question(source, INTENTS[source.pick(list(INTENTS))], thought)
