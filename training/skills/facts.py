"""A little general knowledge: capitals, sums of small numbers, opposites, days."""

from __future__ import annotations

from conversation import Exchange, expand, roughen, table, turn
from skills.lists import DAYS, MONTHS
from words import Source

KNOWN = table("facts")
CAPITALS: dict[str, str] = KNOWN["capitals"]
OPPOSITES: dict[str, str] = KNOWN["opposites"]
SAYINGS: dict[str, str] = KNOWN["sayings"]
ASK_CAPITAL = (
    "What is the capital of {}?",
    "What's the capital of {}?",
    "Name the capital of {}",
    "capital of {}",
    "Which city is the capital of {}?",
    "Tell me the capital of {}.",
    "{}: what is its capital?",
)
ASK_SUM = (
    "What is {} + {}?",
    "{}+{}",
    "What's {} plus {}?",
    "How much is {} plus {}?",
    "{} + {} = ?",
    "Add {} and {}",
    "what is {}+{}",
    "Calculate {} + {}",
    "Compute {}+{}",
    "{} plus {}?",
)
ASK_OPPOSITE = (
    "What is the opposite of {}?",
    "Opposite of {}?",
    "Tell me the opposite of {}",
    "What's the opposite of '{}'?",
)
ASK_NEXT = ("What {u} comes {r} {g}?", "Which {u} is {r} {g}?", "What is the {u} {r} {g}?")


def facts(source: Source, brief: bool = False) -> Exchange:
    """A simple question; `brief` answers with the bare word."""
    kind = source.random.random() * (0.87 if brief else 1.0)  # The sayings have no bare word.
    if kind < 0.4:
        country = source.pick(list(CAPITALS))
        capital = CAPITALS[country]
        shown = "the Netherlands" if country == "Netherlands" else country
        form = source.fresh(ASK_CAPITAL)
        if not source.held_out and source.chance(0.6):
            form = expand(source, source.pick(KNOWN["asking"]["capital"])) + "?"
        question = roughen(source, form.format(shown))
        answer = f"The capital of {shown} is {capital}."
        return turn(question, capital if brief else answer, answer)
    if kind < 0.65:
        a, b = source.random.randint(0, 10), source.random.randint(0, 10)
        question = source.pick(ASK_SUM).format(a, b)
        return turn(question, str(a + b) if brief else f"{a} + {b} = {a + b}", f"{a} plus {b} is {a + b}.")
    if kind < 0.75:
        word = source.pick(list(OPPOSITES))
        question = source.pick(ASK_OPPOSITE).format(word)
        opposite = OPPOSITES[word]
        answer = opposite if brief else f"The opposite of {word} is {opposite}."
        return turn(question, answer, f"Opposite of {word}: {opposite}.")
    if kind < 0.87:
        cycle, unit = source.pick(((DAYS, "day"), (MONTHS, "month")))
        at = source.random.randrange(len(cycle) - 1)
        relation, given, wanted = source.pick(
            (("after", cycle[at], cycle[at + 1]), ("before", cycle[at + 1], cycle[at]))
        )
        question = roughen(source, source.pick(ASK_NEXT).format(u=unit, r=relation, g=given))
        answer = wanted if brief else f"{wanted} comes {relation} {given}."
        return turn(question, answer, f"{wanted} is {relation} {given}.")
    question = source.pick(list(SAYINGS))
    return turn(roughen(source, question), SAYINGS[question], "This is common knowledge.")
