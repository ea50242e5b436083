"""How much an operation of a template makes, told before it is made: upper bounds, in characters.

Escapes, as in JSON, may make it some times as much as is said here. Knows nothing of time, nor of what else
a template makes.
"""

import re
from collections.abc import Callable, Collection, Mapping
from string import Formatter
from types import BuiltinMethodType
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

MAX_CHARS = 16 * 2**20
"""No template has a reason to render more, or to make one string this long: bodies are limited far below."""

NODE = 64
"""What every item counts for beside its text, so that what is short enough has been looked at soon, too."""

POINTER = 8
"""What a copy of a list takes for an item."""

# Of `%` with a text. A key may hold parentheses, so where it began is not asked.
WIDTH = re.compile(r"(?:[%)][-#0 +]*|\.)(\d+)")
WIDTH_ELSEWHERE = re.compile(r"%[-#0-9 +]*\.?\*")


def text(value: Any) -> int:
    """Of `str(value)`."""
    return len(value) if isinstance(value, str) else size(value)


def size(value: Any, each: int = NODE, margin: int = 0) -> int:
    """Of a value that is written with all it holds, `margin` more for an item the deeper it is; not counted
    further than `MAX_CHARS`: what holds one thing many times may have no end."""
    total, level, indent = each, [value], 0
    while level:
        indent += margin
        inner: list[Any] = []
        for item in level:
            held = _held(item)
            total += _own(item) + len(held) * (each + indent)
            if total > MAX_CHARS:
                return total
            inner += held
        level = inner
    return total


def operation(operator: str, left: Any, right: Any) -> int:
    """Of `left operator right`."""
    match operator:
        case "+":
            return _length(left) + _length(right)
        case "*":
            return max(_length(left) * _count(right), _length(right) * _count(left))
        case "%":
            return _remainder(left, right)
    return 0


def method(function: BuiltinMethodType, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Of a call of a method that is written in C: what it is given may end up in the words of an error."""
    bound = METHODS.get(function.__name__) if isinstance(function.__self__, str) else None
    if bound is None:
        return sum(map(text, args))
    # Jinja gives its own along, which it takes away itself.
    named = {name: value for name, value in kwargs.items() if not name.startswith("_")}
    return bound(function.__self__, *args, **named)


def formatted(form: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Of `form.format(*args, **kwargs)`."""
    total, each = len(form), size((args, kwargs))
    for _, field, spec, _ in Formatter().parse(form):
        if spec and "{" in spec:
            raise SecurityError("it formats to a width that is computed")
        total += (each if field is not None else 0) + sum(map(int, re.findall(r"\d+", spec or "")))
        if total > MAX_CHARS:
            break
    return total


def _own(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Namespace):  # may hold itself, and keeps what it holds from being looked at
        return MAX_CHARS + 1
    return value.bit_length() // 3 if isinstance(value, int) else 0


def _held(value: Any) -> Collection[Any]:
    if isinstance(value, str):
        return ()
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, Collection) else ()


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return POINTER * len(value) if isinstance(value, list | tuple) else 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _only_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    return value


def _items(value: Any, *_args: Any, **_kwargs: Any) -> int:
    return NODE * len(value) if isinstance(value, Collection) else 0


def _whole(value: Any, *_args: Any, **_kwargs: Any) -> int:
    """Everything in it is copied or compared, a text's characters one by one."""
    return _items(value) + size(value)


def _printf(value: Any, *args: Any, **kwargs: Any) -> int:
    form = _only_text(value)
    if WIDTH_ELSEWHERE.search(form):
        raise SecurityError("it formats to a width that is computed")
    return len(form) + sum(map(int, WIDTH.findall(form))) + form.count("%") * size((args, kwargs))


def _remainder(value: Any, divisor: Any = 2) -> int:
    return _printf(value, divisor) if isinstance(value, str) else 0


def _replaced(value: Any, old: Any, new: Any, count: Any = None) -> int:
    is_text = isinstance(value, str) and isinstance(old, str)
    times = value.count(old) if is_text else text(value) + text(old)
    return text(value) + times * text(new)


def _joined(value: Any, d: Any = "", attribute: Any = None) -> int:
    return _items(value) + size(value) + _items(value) // NODE * text(d)


def _scanned(value: Any, chars: Any = None, *_args: Any) -> int:
    """Each of one may be compared with each of the other, some hundred of them in the time a copy takes."""
    return text(value) + (text(value) * len(chars) // 64 if isinstance(chars, str) else 0)


def _split(value: str, sep: Any = None, maxsplit: int = -1) -> int:
    num_pieces = value.count(sep) if isinstance(sep, str) and sep else len(value) // 8
    return _scanned(value, sep) + NODE * num_pieces


def _title(value: Any) -> int:
    return NODE * text(value)


def _indented(value: Any, width: Any = 4, *_args: Any, **_kwargs: Any) -> int:
    return len(_only_text(value)) * (POINTER + _margin(width))


def _json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> int:
    return size(value, NODE + sum(map(len, separators or ())), _margin(indent))


def _margin(width: Any) -> int:
    return len(width) if isinstance(width, str) else max(0, width or 0)


def _rounded(value: Any, precision: int = 0, method: str = "common") -> int:
    """A power of ten is made for it."""
    if not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} is no number")
    return precision**2


def _summed(value: Any, attribute: Any = None, start: Any = 0) -> int:
    is_number = isinstance(start, int | float)
    return _items(value) if is_number else _items(value) * (size(value) + size(start))


FILTERS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys(("capitalize", "e", "escape", "lower", "safe", "string", "upper"), text),
    **dict.fromkeys(("dictsort", "groupby", "max", "min", "sort", "unique"), _whole),
    **dict.fromkeys(("list", "map", "reject", "rejectattr", "select", "selectattr"), _items),
    "format": _printf,
    "indent": _indented,
    "join": _joined,
    "replace": _replaced,
    "round": _rounded,
    "sum": _summed,
    "title": _title,
    "tojson": _json,
    "trim": _scanned,
}
"""Takes what the filter takes."""

EAGER = frozenset(("groupby", "join", "max", "min", "sort", "sum", "unique"))
"""Filters that go through all of an iterator, which is made a list of, so that it can be looked at before."""

TESTS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys(("divisibleby", "even", "odd"), _remainder),
    **dict.fromkeys(("lower", "upper"), text),
}
"""Takes what the test takes."""

METHODS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys(("lstrip", "rfind", "rindex", "rpartition", "rstrip", "strip"), _scanned),
    **dict.fromkeys(("rsplit", "split"), _split),
    "join": lambda separator, items: _joined(items, separator),
    "replace": _replaced,
    "splitlines": lambda value, keepends=False: _split(value),
}
"""Of strings; takes the string and what the method takes."""
