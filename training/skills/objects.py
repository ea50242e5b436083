"""JSON objects with the keys and values the user gives."""

from __future__ import annotations

import json
from typing import Any

from conversation import Exchange, turn
from words import Source

THOUGHT = "The user wants one JSON object. I copy the keys and values."
COUNTED = (
    "age",
    "year",
    "quantity",
    "amount",
    "count",
    "number",
    "id",
    "score",
    "height",
    "weight",
    "rating",
    "zip",
)
ASK_KEY_VALUE = (
    "Return a JSON object with the {}.",
    "Give me a JSON object with the {}",
    "Write JSON with the {}.",
    "JSON object with {}",
    "Reply only with a JSON object that has the {}.",
)
ASK_PAIRS = (
    "Return a JSON object with {}.",
    "Give me JSON with {}",
    "Write a JSON object with {}",
    "Make JSON: {}",
    "Reply with a JSON object where {}.",
    "Create a JSON object: {}",
    "JSON with {}",
    "Answer only with JSON: {}",
    "Output JSON with {} and nothing else.",
    "Convert to JSON: {}",
    "As JSON please: {}",
    "Respond in JSON: {}",
)
ASK_KEYS = (
    "Return JSON with the keys {k}. {v}.",
    "Give me a JSON object with keys {k}: {v}.",
    "Keys: {k}. Values: {v}. Answer in JSON.",
    "Reply only with a JSON object with {k}. Here {v}.",
    "Write JSON that has the fields {k}, where {v}.",
)
ASK_SHAPE = (
    "Reply only with JSON of the shape {s}. The {v}.",
    "Answer with JSON like {s}: {v}.",
    "Use this schema: {s}. Here {v}.",
    "Fill in {s} where {v}",
    "Return JSON matching {s} for: {v}",
)
ASK_EXTRACTION = (
    'Extract {k} as JSON from: "{s}"',
    "Extract {k} as JSON: {s}",
    "Turn this into JSON with {k}: {s}",
    "{s} Give me JSON with {k}.",
    "Return {k} as a JSON object. Text: {s}",
    "{s} Answer in JSON with the keys {k}.",
)


def value(source: Source, key: str) -> Any:
    """A value that fits a key: names and cities are text, ages and counts numbers."""
    if "name" in key or key in ("author", "username", "nickname"):
        return source.name()
    if key in ("city", "address", "place", "street"):
        return source.city()
    if key in COUNTED:
        return source.number(1, source.pick((99, 999, 9999)))
    if key in ("price", "temperature"):
        return round(source.number(1, 9999) / 100, source.pick((1, 2)))
    kind = source.random.random()
    if kind < 0.55:
        word = source.word()
        return int(word) if word.isdigit() else word
    if kind < 0.65:
        return f"{source.word()} {source.word()}"
    return source.number(0, 9999) if kind < 0.93 else source.pick((True, False))


def shape(value: Any) -> str:
    """The name of a value's JSON type."""
    return {bool: "boolean", int: "integer", float: "number", str: "string"}[type(value)]


def objects(source: Source) -> Exchange:
    """A request for a JSON object, by text, by shape or by a sentence to extract from."""
    kind = source.random.random()
    if kind < 0.2:
        return extraction(source)
    keys = list(dict.fromkeys(source.key() for _ in range(source.random.choice((1, 2, 2, 3, 3, 3, 4, 4, 5)))))
    pairs = {key: value(source, key) for key in keys}
    quoted = source.chance(0.3)
    written = {k: json.dumps(v) if not isinstance(v, str) or quoted else v for k, v in pairs.items()}
    if kind < 0.3:
        form = source.pick(ASK_KEY_VALUE)
        shown = {k: json.dumps(v, ensure_ascii=False) for k, v in pairs.items()}
        text = join(source, [f"key {quote(source, k)} and value {v}" for k, v in shown.items()])
        question = form.format(text)
    elif kind < 0.6:
        joint = source.pick((" ", ": ", " = ", " is ", " set to "))
        listed = [f"{k}{joint}{v}" for k, v in written.items()]
        text = join(source, listed)
        question = source.pick(ASK_PAIRS).format(text)
    elif kind < 0.8:
        names = join(source, list(pairs))
        text = join(source, [f"{k} is {v}" for k, v in written.items()])
        question = source.pick(ASK_KEYS).format(k=names, v=text)
    else:
        types = "{" + ", ".join(f'"{k}": {shape(v)}' for k, v in pairs.items()) + "}"
        text = join(source, [f"{k} is {v}" for k, v in written.items()])
        question = source.pick(ASK_SHAPE).format(s=types, v=text)
    return turn(question, json.dumps(pairs, ensure_ascii=False), THOUGHT)


def quote(source: Source, key: str) -> str:
    """A key in double quotes or bare."""
    return f'"{key}"' if source.chance(0.6) else key


def join(source: Source, parts: list[str]) -> str:
    """Parts joined as a sentence or as a plain comma list."""
    if len(parts) > 1 and source.chance(0.6):
        return ", ".join(parts[:-1]) + " and " + parts[-1]
    return ", ".join(parts)


def extraction(source: Source) -> Exchange:
    """A sentence whose facts go into an object."""
    name, city, age, noun = source.name(), source.city(), source.number(18, 99), source.noun()
    options: list[tuple[str, dict[str, Any]]] = [
        (f"{name} lives in {city}.", {"name": name, "city": city}),
        (f"{name} is {age} years old.", {"name": name, "age": age}),
        (f"{name} is {age} years old and lives in {city}.", {"name": name, "age": age, "city": city}),
        (f"{name} bought {age} {noun}s.", {"name": name, "quantity": age, "item": noun}),
        (f"{name} from {city} has a {noun}.", {"name": name, "city": city, "item": noun}),
        (f"The {noun} costs {age} euros.", {"item": noun, "price": age}),
    ]
    sentence, pairs = source.pick(options)
    form = source.pick(ASK_EXTRACTION)
    keys = join(source, list(pairs))
    return turn(form.format(k=keys, s=sentence), json.dumps(pairs, ensure_ascii=False), THOUGHT)
