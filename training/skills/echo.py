"""Repeating text, the skill that all copying rests on."""

from __future__ import annotations

from conversation import Exchange, table, turn
from words import NOUNS, Source

THOUGHT = "The user wants me to repeat a text. I copy it exactly."

PHRASES = table("echo")
QUOTES = (("'", "'"), ('"', '"'), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"))
RECALLS = (
    "What did I just say?",
    "what did I say?",
    "Can you repeat what I said?",
    "What was my last message?",
    "Repeat my last message",
    "What did I just write?",
    "Say again what I said.",
    "What was that again?",
)


def content(source: Source) -> str:
    """A text worth repeating: words, sentences, codes, addresses, symbols or a list of numbers."""
    kind = source.random.random()
    if kind < 0.22:
        return source.word()
    if kind < 0.6:
        return source.phrase(2, 7)
    if kind < 0.75:
        return source.sentence()
    if kind < 0.8:
        return " ".join(str(source.number(0, 9999)) for _ in range(source.random.randint(1, 5)))
    if kind < 0.84:
        return f"{source.invented()}@{source.invented()}.{source.pick(('com', 'org', 'net', 'io'))}"
    if kind < 0.88:
        host = f"{source.invented()}.{source.pick(('com', 'org'))}"
        return f"https://{host}/{source.noun()}/{source.number(1, 999)}"
    if kind < 0.95:
        count = source.random.randint(1, 5)
        odd = PHRASES["odd"]
        return " ".join(source.pick(odd) if source.chance(0.4) else source.word() for _ in range(count))
    return source.phrase(7, 14)


def echo(source: Source) -> Exchange:
    """The user gives a text to repeat."""
    text = content(source)
    kind = source.random.random()
    if kind < 0.1:
        times = source.random.randint(2, 4)
        text = source.word()
        form = source.pick(("Say {q} {n} times", "Repeat {q} {n} times.", "Write the word {q} {n} times"))
        answer = " ".join([text] * times)
        thought = f"I write {text} {times} times."
        left, right = source.pick(QUOTES)
        return turn(form.format(q=left + text + right, n=times), answer, thought)
    if kind < 0.16:
        text = source.fresh(NOUNS)
        form = source.pick(("Spell the word {}", "How do you spell {}?", "Spell {}"))
        return turn(form.format(text), "-".join(text), f"I write {text} letter by letter.")
    form = source.pick(PHRASES["forms"])
    left, right = source.pick(QUOTES)
    quoted = text if (left in text or source.chance(0.15)) else left + text + right
    question = form.format(text, q=quoted)
    if source.chance(0.15):
        question = question.replace(": ", ":\n", 1)
    if source.chance(0.15):
        question = question[0].lower() + question[1:]
    return turn(question, text, THOUGHT)


def recall(source: Source) -> Exchange:
    """The user says something, then asks what it was."""
    said = source.sentence() if source.chance(0.6) else source.phrase(2, 6)
    question = source.pick(RECALLS)
    messages = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": question},
        {"role": "assistant", "content": f'You said: "{said}"'},
    ]
    return Exchange(messages, f'The last message was "{said}".')
