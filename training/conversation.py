"""What every skill produces: a few messages, and what counts as a right answer to the last of them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from words import Source

Message = dict[str, Any]
# "questions", "patterns" and "held_out": phrasings of one question; "answers": what fits all of them.
Intent = dict[str, list[str]]


@dataclass
class Exchange:
    """Messages that end with the assistant's answer, as an OpenAI client would send and receive them."""

    messages: list[Message]
    thought: str = ""  # Reasoning before the last answer, written when thinking is on.
    tools: list[dict[str, Any]] = field(default_factory=list)
    accepted: tuple[str, ...] = ()  # Other right answers to the last question, for evaluation.
    thinking: bool = False
    plain: bool = False  # Only the last answer's text, without any chat around it.


def turn(question: str, answer: str, thought: str = "", accepted: tuple[str, ...] = ()) -> Exchange:
    """One question with its answer."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Exchange(messages, thought, accepted=accepted)


OPENINGS = ("hey, ", "hi, ", "ok, ", "so ", "please tell me, ", "hello! ", "quick question: ", "well, ")


def roughen(source: Source, text: str) -> str:
    """The text as hurried people type it: other case, lost punctuation, a typo, politeness around it."""
    sentence = text.count(" ") > 1  # Shorter ones would lose their sense.
    if sentence and source.chance(0.12):
        text = source.pick(OPENINGS) + text
    if sentence and source.chance(0.06):
        text = text.rstrip("?.!") + source.pick((" please?", ", please.", " please", " thanks", " for me?"))
    if source.chance(0.3):
        text = text.rstrip("?.!")
    elif source.chance(0.08):
        text = text.rstrip("?.!") + source.pick(("??", "!", "...", " ?", "!!", "."))
    case = source.random.random()
    if case < 0.3:
        text = text.lower()
    elif case < 0.32:
        text = text.upper()
    if source.chance(0.1) and len(text) > 11:
        at = source.random.randrange(1, len(text) - 2)
        kind = source.random.random()
        if kind < 0.4:
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        elif kind < 0.7:
            text = text[:at] + text[at + 1 :]
        else:
            text = text[:at] + text[at] + text[at:]
    return text


@cache
def table(name: str) -> dict[str, Any]:
    """The phrases of a skill, from its TOML file."""
    return tomllib.loads((Path(__file__).parent / "skills" / f"{name}.toml").read_text())


CHOICE = re.compile(r"\(([^()|]*(?:\|[^()|]*)+)\)")


def expand(source: Source, pattern: str) -> str:
    """One phrasing out of a pattern: each <name> from phrases.toml, and each (a|b) either a or b."""
    for name, phrases in table("phrases").items():
        pattern = pattern.replace(f"<{name}>", phrases)
    while choice := CHOICE.search(pattern):
        pattern = pattern[: choice.start()] + source.pick(choice[1].split("|")) + pattern[choice.end() :]
    pattern = " ".join(pattern.split())
    return pattern[:1].upper() + pattern[1:]


def bare(text: str) -> str:
    """The text's letters and digits in lower case, to compare phrasings by."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def patterned(source: Source, patterns: Sequence[str], held_out: Sequence[str]) -> str:
    """A phrasing out of one of the patterns, but none of those held out."""
    banned = {bare(text) for text in held_out}
    while bare(text := expand(source, source.pick(patterns))) in banned:
        pass
    return text + source.pick(("", "?", "?", ".", "!"))


def phrasing(source: Source, intent: Intent) -> str:
    """One way to ask an intent's question, from the source's side of the split."""
    if source.held_out:
        return source.pick(intent["held_out"])
    if source.chance(0.25):
        return source.pick(intent["questions"])
    return patterned(source, intent["patterns"], intent["held_out"])


def small_question(source: Source, intent: Intent, thought: str) -> Exchange:
    """A roughened phrasing of one kind of question with one of its fixed answers."""
    answer = source.pick(intent["answers"])
    return turn(roughen(source, phrasing(source, intent)), answer, thought, tuple(intent["answers"]))
