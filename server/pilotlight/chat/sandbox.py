"""Where a model's template runs: it can reach nothing and change nothing, and it ends.

A template is a stranger's program: it may loop for ever without writing a character, or ask for all memory
in one expression. Every turn of a loop, every call and every filter looks at the clock, so no thread has to
watch; what would be too long is refused before it is made (`bounds`), and what is held of it is counted
(`Held`). What is left: comparing or hashing values that hold one thing a thousandfold is not bounded, and
hangs the template's own model, or ends its worker. Knows nothing of messages.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from math import isfinite
from sys import getsizeof
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_eval_context
from markupsafe import escape

from pilotlight.chat import bounds
from pilotlight.chat.bounds import MAX_CHARS
from pilotlight.chat.held import STEP, Held

LIMIT_S = 5.0
"""A real template renders a long conversation in milliseconds."""

MAX_BYTES = 16 * MAX_CHARS
"""Of what a template has made and still holds. A real one makes a conversation anew for every message of it,
hundreds of times, but holds it a few times."""

MAX_BITS = 1024
"""Of a whole number, as of the largest float: a division of long ones takes hours."""

UNNEEDED = (
    "batch",
    "center",
    "forceescape",
    "pprint",
    "slice",
    "striptags",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
)
"""Filters that are slow or make much of little, and that no chat template uses."""

UNSAFE_METHODS = (
    "center",
    "encode",
    "expandtabs",
    "format_map",
    "from_bytes",
    "ljust",
    "maketrans",
    "rjust",
    "to_bytes",
    "translate",
    "zfill",
)
"""Of strings and numbers, for the same reason."""


class Timed(CodeGenerator):
    """Compiles a look at the clock into whatever can repeat, and counting into what makes something;
    loops without a body are bounded by their data."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.test is not None:
            node.test = nodes.And(_look(node), node.test, lineno=node.lineno)
        self._time(node)
        super().visit_For(node, frame)

    def visit_Macro(self, node: nodes.Macro, frame: Frame) -> None:
        self._time(node)
        super().visit_Macro(node, frame)

    def visit_CallBlock(self, node: nodes.CallBlock, frame: Frame) -> None:
        self._time(node)
        super().visit_CallBlock(node, frame)

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        _check_number(node.value)
        super().visit_Const(node, frame)

    def visit_EvalContextModifier(self, node: nodes.EvalContextModifier, frame: Frame) -> None:
        raise SecurityError("it has text marked as HTML")  # whose methods are not those that are bounded

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.text(")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        self._count(super().visit_Getitem, node, frame, isinstance(node.arg, nodes.Slice))

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        self._count(super().visit_Tuple, node, frame, node.ctx == "load")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._count(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._count(super().visit_Dict, node, frame)

    def _time(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> None:
        node.body.insert(0, nodes.ExprStmt(_look(node), lineno=node.lineno))

    def _count(
        self, visit: Callable[[Any, Frame], None], node: nodes.Expr, frame: Frame, is_made: bool = True
    ) -> None:
        self.write("environment.made(" if is_made else "")
        visit(node, frame)
        self.write(")" if is_made else "")


def _look(node: nodes.Node) -> nodes.Expr:
    return nodes.EnvironmentAttribute("is_in_time", lineno=node.lineno)


class Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. Two threads that render at once count for each other."""

    code_generator_class = Timed
    intercepted_binops = frozenset(("+", "-", "*", "**", "%"))

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # Nothing is computed at compile time, which has no limit: neither by the optimizer nor for constants
        # that are written, because `_written` asks for a context.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=self._written,
            extensions=[loopcontrols, Generation],
        )
        self._clock = clock
        self._deadline = 0.0
        self._held = Held()
        del self.globals["lipsum"]
        for name in UNNEEDED:
            del self.filters[name]
        # Nothing is escaped here but by these, so text needs no marks, nor the methods of text that has them.
        self.filters.update(safe=self.filters["string"], e=_escaped, escape=_escaped)
        filters: dict[str, Callable[..., Any]] = dict(self.filters)
        for name, function in filters.items():
            self.add_filter(name, function)
        tests: dict[str, Any] = self.tests
        for name, bound in bounds.TESTS.items():
            tests[name] = self._bounded(tests[name], bound)

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Have a filter, bounded as one of that name."""
        self.filters[name] = self._bounded(function, bounds.FILTERS.get(name), name in bounds.EAGER)

    @contextmanager
    def limits(self) -> Iterator[None]:
        """Templates that render inside this block have `LIMIT_S` to end, and hold at most `MAX_BYTES`."""
        self._deadline = self._clock() + LIMIT_S
        try:
            yield
        finally:
            self._held = Held()

    @property
    def is_in_time(self) -> bool:
        """True; raises `SecurityError` when the time is over."""
        if self._clock() > self._deadline:
            raise SecurityError(f"it runs for more than {LIMIT_S:g} s")
        return True

    def made(self, value: Any, more: int = 0) -> Any:
        """The value, counted, and `more` bytes; raises `SecurityError` if that is too much or too late."""
        if self._held.add(value, more) > MAX_BYTES + STEP:
            raise SecurityError(f"it holds more than {MAX_BYTES} bytes of text and lists")
        _check_number(value)
        return self.is_in_time and value

    def text(self, *parts: Any) -> str:
        """All of them as one string; raises `SecurityError` if it would be too long."""
        _check(sum(map(bounds.text, parts)))
        return str(self.made("".join(map(str, parts))))

    def concat(self, pieces: Iterable[str]) -> str:
        """What a template, a block or a macro has written."""
        parts, num_chars = [], 0
        for piece in pieces:
            parts.append(piece)
            num_chars += len(piece)
            if num_chars > MAX_CHARS or not self.is_in_time:
                raise SecurityError(f"it renders more than {MAX_CHARS} characters")
        return str(self.made("".join(parts)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """One `*` may ask for all memory, one `**` for all time, and neither can be interrupted."""
        if operator == "**":
            raise SecurityError("it computes a power")
        _check(bounds.operation(operator, left, right))
        return self.made(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not self.is_safe_callable(obj):
            raise SecurityError("it calls what is not safe")  # Jinja would say what that is, at any length
        if isinstance(obj, BuiltinMethodType):
            args = _eager(args)
            _check(bounds.method(obj, args, kwargs))
        return self._counted(super().call(context, obj, *args, **kwargs), args, kwargs)

    def call_test(self, *args: Any, **kwargs: Any) -> Any:
        """For each item of a list, by `select` and `reject`."""
        return self.is_in_time and super().call_test(*args, **kwargs)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What is not found is told, at any length."""
        _check(bounds.text(argument))
        return self.is_in_time and super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        is_slow = isinstance(obj, str | int) and attr in UNSAFE_METHODS
        return not is_slow and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Every way to `str.format` leads through here, and none to `format_map`."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ != "format":
            return None

        def wrapper(*args: Any, **kwargs: Any) -> str:
            _check(bounds.formatted(value.__self__, args, kwargs))
            return wrapped(*args, **kwargs)

        return wrapper

    @pass_eval_context
    def _written(self, _context: EvalContext, value: Any) -> str:
        return value if isinstance(value, str) else self.text(value)

    def _bounded(
        self, function: Callable[..., Any], bound: Callable[..., int] | None, is_eager: bool = False
    ) -> Callable[..., Any]:
        own = int(hasattr(function, "jinja_pass_arg"))

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            if is_eager:
                args = _eager(args)
            if bound is not None:
                _check(bound(*args[own:], **kwargs))
            return self._counted(function(*args, **kwargs), args, kwargs)

        return bounded

    def _counted(self, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """It may hold its arguments, and what it holds itself may be new, and held without the rest of it."""
        for item in value if isinstance(value, list | tuple) else ():
            self.made(item)
        return self.made(value, getsizeof(args) + getsizeof(kwargs))


def _check(num_chars: int) -> None:
    if num_chars > MAX_CHARS:
        raise SecurityError(f"it makes more than {MAX_CHARS} characters at once")


def _check_number(value: Any) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise SecurityError("it computes with what is no number")  # Python reads it as a name
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise SecurityError(f"it computes with numbers of more than {MAX_BITS} bits")


def _eager(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(list(arg) if isinstance(arg, Iterator) else arg for arg in args)


def _escaped(value: Any) -> str:
    return str(escape(value))
