"""Who asks for what, and when: generated, or read from a file of one JSON object per line."""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from pilotlight.core import RequestClass
from pilotlight.errors import ConfigError

ANSWER_TOKENS = 300
EVERY_S = 180.0
"""A person asks about so often; the time in between is off by up to a third."""

BACKGROUND_TOKENS = 400

KEYS = {"at", "class", "tokens"}


class Ask(Struct, frozen=True):
    """A request: seconds from the start, its class, and the tokens of its answer."""

    at: float
    request_class: RequestClass
    tokens: int


class Trace(Struct, frozen=True):
    """The requests in the order they come; `is_saturated` if background work never ends besides."""

    asks: tuple[Ask, ...]
    is_saturated: bool = False


def generated(seconds: float, seed: int) -> Trace:
    """Saturating background, and somebody who asks for 300 tokens every 3 min or so."""
    dice = random.Random(f"asks {seed}")
    return Trace(tuple(_interactive(seconds, dice)), is_saturated=True)


def _interactive(seconds: float, dice: random.Random) -> Iterator[Ask]:
    at = dice.uniform(0, EVERY_S)
    while at < seconds:
        yield Ask(at, RequestClass.INTERACTIVE, ANSWER_TOKENS)
        at += EVERY_S * dice.uniform(2 / 3, 4 / 3)


def recorded(file: Path) -> Trace:
    """Lines such as `{"at": 12.5, "class": "background", "tokens": 200}`. Raises `ConfigError`."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}") from exc
    asks = sorted(_asks(file, lines), key=lambda ask: ask.at)
    if not asks:
        raise ConfigError(f"{file} has no requests")
    return Trace(tuple(asks))


def _asks(file: Path, lines: Iterable[str]) -> Iterator[Ask]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _ask(json.loads(line))
            except (ValueError, RecursionError) as exc:
                raise ConfigError(f"{file}, line {number}: {exc}") from exc


def _ask(entry: object) -> Ask:
    """Raises `ValueError`."""
    if not isinstance(entry, dict) or entry.keys() != KEYS:
        raise ValueError('a request is an object with "at", "class" and "tokens", and nothing else')
    at, tokens = entry["at"], entry["tokens"]
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e9:
        raise ValueError(f'"at" is in seconds from the start, not {at!r}')
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 < tokens < 10**7:
        raise ValueError(f'"tokens" is a number of tokens, not {tokens!r}')
    if entry["class"] not in list(RequestClass):
        raise ValueError(f'"class" is one of {", ".join(RequestClass)}, not {entry["class"]!r}')
    return Ask(float(at), RequestClass(entry["class"]), tokens)
