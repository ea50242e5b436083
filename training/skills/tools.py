"""Calling the right tool with copied arguments, telling its result, and needing no tool at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from conversation import Exchange, Message, table
from skills.about import about
from skills.echo import echo
from skills.smalltalk import smalltalk
from words import ADJECTIVES, NOUNS, VERBS, Source

Tool = dict[str, Any]
Arguments = dict[str, Any]


def tool(source: Source, name: str, description: str, parameters: dict[str, str]) -> Tool:
    """A function tool as OpenAI clients send it; `parameters` maps names to JSON types."""
    described = source.chance(0.3)
    properties = {
        key: {"type": kind, "description": f"The {key.replace('_', ' ')}"} if described else {"type": kind}
        for key, kind in parameters.items()
    }
    function: dict[str, Any] = {"name": name}
    if source.chance(0.9):
        function["description"] = description
    function["parameters"] = {"type": "object", "properties": properties}
    if source.chance(0.8):
        function["parameters"]["required"] = list(parameters)
    return {"type": "function", "function": function}


FAMILIES = table("tools")["families"]


def argument(source: Source, key: str, kind: str) -> Any:
    """A value for a parameter."""
    if kind in ("integer", "number"):
        return source.number(1, source.pick((20, 99, 999, 9999)))

    def words(most: int) -> Callable[[], str]:
        return lambda: source.phrase(1, most).rstrip(".!?")

    makers: dict[str, Callable[[], str]] = {
        **dict.fromkeys(("city", "location", "origin", "destination"), source.city),
        "name": source.name,
        "to": lambda: f"{source.invented()}@{source.invented()}.com",
        "unit": lambda: source.pick(("celsius", "fahrenheit")),
        "language": lambda: source.pick(("French", "German", "Spanish", "Italian", "Dutch", "Polish")),
        "symbol": lambda: source.scramble().upper(),
        "path": lambda: f"{source.noun()}/{source.word()}.txt",
        "query": words(4),
        "text": words(3),
        "title": words(3),
    }
    return makers.get(key, source.word)()


def offer(source: Source) -> tuple[Tool, str, Arguments]:
    """A tool, a question that needs it, and the arguments the question gives."""
    if source.chance(0.5):
        family = source.pick(FAMILIES)
        arguments = {key: argument(source, key, kind) for key, kind in family["parameters"].items()}
        offered = tool(source, family["name"], family["description"], family["parameters"])
        return offered, source.pick(family["questions"]).format(**arguments), arguments
    verb, noun = source.fresh(VERBS), source.fresh(NOUNS)
    name = source.pick(
        (
            f"{verb}_{noun}",
            f"{verb}_{source.fresh(ADJECTIVES)}_{noun}",
            f"{verb}{noun.capitalize()}",
            f"{noun}_{verb}",
        )
    )
    keys = list(dict.fromkeys(source.key() for _ in range(source.random.choice((1, 1, 2, 2, 3)))))
    parameters = {key: source.pick(("string", "string", "integer")) for key in keys}
    arguments = {key: argument(source, key, kind) for key, kind in parameters.items()}
    listed = source.pick((" and ", ", ")).join(f"{key} {arg}" for key, arg in arguments.items())
    question = source.pick(
        (
            f"{verb} the {noun} with {listed}",
            f"Please {verb} a {noun}: {listed}.",
            f"Call {name} with {listed}",
            f"Use the {name} tool with {listed}",
            f"Use {name}: {listed}",
            f"I want to {verb} the {noun}, {listed}",
        )
    )
    return tool(source, name, f"{verb.capitalize()} the {noun}", parameters), question, arguments


def shown(result: Any) -> str:
    """A tool's result as text."""
    return json.dumps(result, ensure_ascii=False) if isinstance(result, dict) else str(result)


def tools(source: Source) -> Exchange:
    """A conversation with one to three tools on offer."""
    wanted, question, arguments = offer(source)
    name = wanted["function"]["name"]
    offers = {name: (wanted, question, arguments)}
    for _ in range(source.random.choice((0, 0, 1, 1, 2))):
        other = offer(source)
        offers.setdefault(other[0]["function"]["name"], other)
    shuffled = [offered for offered, _, _ in offers.values()]
    source.random.shuffle(shuffled)
    kind = source.random.random()
    if kind < 0.15:
        exchange = source.pick((smalltalk, about, echo))(source)
        exchange.tools = shuffled
        exchange.thought = "No tool is needed here. " + exchange.thought
        return exchange
    messages: list[Message] = []
    for earlier, (_, asked, given) in offers.items():
        if earlier != name and source.chance(0.6):
            messages += called(earlier, asked, given) + told(source, earlier, given)
    messages += called(name, question, arguments)
    if kind < 0.75:
        return Exchange(messages, f"The tool {name} fits. I call it with the user's values.", shuffled)
    return Exchange(messages + told(source, name, arguments), "", shuffled)


def called(name: str, question: str, arguments: Arguments) -> list[Message]:
    """A question and the call that it needs."""
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    return [{"role": "user", "content": question}, call]


def told(source: Source, name: str, arguments: Arguments) -> list[Message]:
    """A call's result and the answer that tells it."""
    result, answer = outcome(source, name, arguments)
    return [{"role": "tool", "content": result}, {"role": "assistant", "content": answer}]


def outcome(source: Source, name: str, arguments: Arguments) -> tuple[str, str]:
    """What a tool returned, and the plain answer that tells it."""
    city = arguments.get("city", arguments.get("location"))
    if "weather" in name and city:
        degrees = source.number(1, 39)
        sky = source.pick(("sunny", "cloudy", "rainy", "windy", "clear", "snowy"))
        result = source.pick((f"{degrees} degrees, {sky}", f"{sky}, {degrees} degrees"))
        if source.chance(0.6):
            pairs = [("temperature", degrees), (source.pick(("condition", "sky")), sky)]
            source.random.shuffle(pairs)
            result = shown(dict(pairs))
        return result, f"It is {sky} in {city}, with {degrees} degrees."
    value: Any = source.pick((source.number(0, 99999), source.word(), source.phrase(2, 4).rstrip(".!?")))
    if source.chance(0.5):
        result = shown(value)
    else:
        result = shown({source.pick(("result", "value", "answer", "status", "output")): value})
    return result, f"The result is {value}."
