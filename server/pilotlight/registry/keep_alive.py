"""How long a model stays loaded after its last request: seconds, or words as Ollama's clients write them."""

import math
import re
import sys

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")

FOREVER = math.inf

MAX_LENGTH = 100
"""Characters of a duration in words."""

WRONG = 'must be seconds (300), a duration ("5m", "1h30m"), 0 (unload at once) or -1 (never unload)'


def seconds(value: float | str, wrong: str = WRONG) -> float:
    """0: unload when the answer ends; `FOREVER` for anything below 0, and for more than a float can be.

    Raises `ValueError`, which says `wrong`: other durations than this one are written alike, but not all of
    them may be 0 or without an end.
    """
    if isinstance(value, str):
        value = _parse(value.strip(), wrong)
    return FOREVER if value < 0 or value > sys.float_info.max else float(value)


def _parse(text: str, wrong: str) -> float:
    if len(text) > MAX_LENGTH:
        raise ValueError(wrong)
    sign, words = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.fullmatch(r"\d+(\.\d+)?", words):
        return sign * float(words)
    if not _WHOLE.fullmatch(words):
        raise ValueError(wrong)
    return sign * sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(words))
