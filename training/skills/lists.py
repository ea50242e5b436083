"""Short lists, counting, and a few everyday sequences."""

from __future__ import annotations

from conversation import Exchange, roughen, table, turn
from words import Source

THINGS: dict[str, str] = table("lists")["things"]
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
STYLES = {
    "": "comma",
    " as a bulleted list": "bullet",
    " as a numbered list": "number",
    " in bullet points": "bullet",
    ", one per line": "line",
    " separated by commas": "comma",
    " as bullets": "bullet",
    ", numbered": "number",
}
ASK_THINGS = (
    "List {n} {t}{e}",
    "Name {n} {t}{e}.",
    "Give me {n} {t}{e}",
    "Tell me {n} {t}{e}",
    "{n} {t}{e}",
    "Write {n} {t}{e}",
    "Can you name {n} {t}{e}?",
    "I need {n} {t}{e}",
    "Give me a list of {n} {t}{e}.",
)
ASK_OWN = ("Write {i}{e}.", "List these{e}: {i}", "Make a list{e} of {i}", "Format {i}{e}", "Put {i}{e}")
ASK_DATES = ("List the {}{}", "Name the {}{}", "What are the {}{}?", "Tell me the {}{}", "Give me the {}{}")
ASK_COUNT = (
    "Count from {a} to {b}{e}",
    "count {a} to {b}{e}",
    "List the numbers from {a} to {b}{e}.",
    "Write the numbers from {a} to {b}{e}",
    "Can you count from {a} to {b}{e}?",
    "Numbers {a} to {b}{e}",
    "Please count from {a} to {b}{e}.",
    "Count slowly from {a} to {b}{e}",
    "Print all numbers from {a} to {b}{e}",
)
ASK_COUNT_TO = (
    "Count to {b}{e}",
    "Count up to {b}{e}",
    "List the first {b} numbers{e}",
    "Can you count to {b}{e}?",
)
ASK_COUNT_DOWN = ("Count down from {a} to {b}{e}", "Count backwards from {a} to {b}{e}")


def layout(items: list[str], style: str) -> str:
    """The items written out as a comma list, lines, bullets or numbered lines."""
    if style == "comma":
        return ", ".join(items)
    if style == "bullet":
        return "\n".join(f"- {item}" for item in items)
    if style == "number":
        return "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))
    return "\n".join(items)


def lists(source: Source) -> Exchange:
    """A list of common things, of the user's own items, of days or of months."""
    ending = source.pick(list(STYLES)) if source.chance(0.5) else ""
    style = STYLES[ending]
    kind = source.random.random()
    if kind < 0.55:
        topic = source.pick(list(THINGS))
        count = source.random.randint(2, 7) if source.chance(0.85) else source.random.randint(1, 8)
        amount = WORDS[count - 1] if source.chance(0.6) else str(count)
        question = roughen(source, source.pick(ASK_THINGS).format(n=amount, t=topic, e=ending))
        thought = f"The user wants {count} {topic}. I list exactly {count}."
        return turn(question, layout(THINGS[topic].split()[:count], style), thought)
    if kind < 0.85:
        items = [source.word() for _ in range(source.random.randint(2, 6))]
        ending = ending or " as a bulleted list"
        question = source.pick(ASK_OWN).format(i=", ".join(items), e=ending)
        return turn(question, layout(items, STYLES[ending]), "I write the user's items as a list.")
    days = source.chance(0.6)
    form = source.pick(ASK_DATES)
    topic = source.pick(("weekdays", "days of the week") if days else ("months", "months of the year"))
    items = DAYS[:5] if topic == "weekdays" else DAYS if days else MONTHS
    question = roughen(source, form.format(topic, ending))
    return turn(question, layout(items, style), f"I list the {topic} in order.")


def counting(source: Source, long: bool = False) -> Exchange:
    """Counting up or down between two numbers; the long form, up to 120 numbers, gives text to stream."""
    if long:
        start, length = 1, source.pick((50, 100, 100, 60, 40, 30, 80, source.random.randint(20, 120)))
    else:
        start = source.random.choice((1, 1, source.random.randint(0, 30), source.random.randint(0, 99)))
        length = source.random.randint(2, 12)
    stop = start + length - 1
    numbers = [str(n) for n in range(start, stop + 1)]
    down = not long and source.chance(0.12)
    if down:
        start, stop, numbers = stop, start, numbers[::-1]
    ending = source.pick(list(STYLES)) if source.chance(0.2) else ""
    if STYLES[ending] in ("bullet", "number"):
        ending = ", one per line"
    form = source.pick(ASK_COUNT)
    if down:
        form = source.pick(ASK_COUNT_DOWN)
    elif start == 1 and source.chance(0.25):
        form = source.pick(ASK_COUNT_TO)
    question = form.format(a=start, b=stop, e=ending)
    return turn(question, layout(numbers, STYLES[ending]), f"I count from {start} to {stop}.")


def long_counting(source: Source) -> Exchange:
    """Counting far."""
    return counting(source, long=True)
