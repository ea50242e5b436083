"""What every skill produces: a few messages, and what counts as a right answer to the last of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from words import Source

Message = dict[str, Any]
Intent = dict[str, list[str]]  # "questions": phrasings of one; "answers": what fits all of them.


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
    if source.chance(0.12):
        text = source.pick(OPENINGS) + text
    if source.chance(0.06):
        text = text.rstrip("?.!") + source.pick((" please?", ", please.", " please", " thanks", " for me?"))
    if source.chance(0.3):
        text = text.rstrip("?.!")
    elif source.chance(0.08):
        text = text.rstrip("?.!") + source.pick(("??", "!", "...", " ?", "!!", "."))
    case = source.random.random()
    if case < 0.3:
        text = text.lower()
    elif case < 0.36:
        text = text.upper()
    if source.chance(0.12) and len(text) > 5:
        at = source.random.randrange(1, len(text) - 2)
        kind = source.random.random()
        if kind < 0.4:
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        elif kind < 0.7:
            text = text[:at] + text[at + 1 :]
        else:
            text = text[:at] + text[at] + text[at:]
    return text


def table(name: str) -> dict[str, Any]:
    """The phrases of a skill, from its TOML file."""
    return tomllib.loads((Path(__file__).parent / "skills" / f"{name}.toml").read_text())


def small_question(source: Source, intent: Intent, thought: str) -> Exchange:
    """A roughened phrasing of one kind of question with one of its fixed answers."""
    answer = source.pick(intent["answers"])
    return turn(roughen(source, source.fresh(intent["questions"])), answer, thought, tuple(intent["answers"]))
