"""Where a model's template runs: it can reach nothing and change nothing, and it ends.

A template is a stranger's program, and it may loop for ever without writing a character. Every turn of a loop
and every entry of a macro looks at the clock, so no thread has to watch. Knows nothing of messages.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARS = 16 * 2**20
"""No template has a reason to render more, or to make one string this long: bodies are limited far below."""

LIMIT_S = 5.0
"""A real template renders a long conversation in milliseconds."""


class Timed(CodeGenerator):
    """Compiles a look at the clock into whatever can repeat;
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

    def _time(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> None:
        node.body.insert(0, nodes.ExprStmt(_look(node), lineno=node.lineno))


def _look(node: nodes.Node) -> nodes.Expr:
    method = nodes.EnvironmentAttribute("is_in_time", lineno=node.lineno)
    return nodes.Call(method, [], [], None, None, lineno=node.lineno)


class Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template; renders one thing at a time."""

    code_generator_class = Timed
    intercepted_binops = frozenset(("*", "**"))

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
        self._clock = clock
        self._deadline = 0.0

    @contextmanager
    def time_limit(self) -> Iterator[None]:
        """Templates that render inside this block have `LIMIT_S` to end."""
        self._deadline = self._clock() + LIMIT_S
        yield

    def is_in_time(self) -> bool:
        """True; raises `SecurityError` when the time is over."""
        if self._clock() > self._deadline:
            raise SecurityError(f"it runs for more than {LIMIT_S:g} s")
        return True

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """One `*` may ask for all memory, one `**` for all time, and neither can be interrupted."""
        if operator == "**":
            raise SecurityError("it computes a power")
        if _length(left) * _count(right) > MAX_CHARS or _length(right) * _count(left) > MAX_CHARS:
            raise SecurityError(f"it repeats something to more than {MAX_CHARS} items")
        return super().call_binop(context, operator, left, right)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
