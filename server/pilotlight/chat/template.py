"""Renders chat messages with a model's own Jinja template, in a sandbox: a template is a stranger's program.

Runs in the worker, so that a template that loops for ever costs its own model and nothing else. Knows no HTTP
and no tokens. What the environment offers is what templates are written against (Hugging Face
`transformers`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError

from pilotlight.chat.sandbox import MAX_CHARS, Sandbox
from pilotlight.errors import BadRequest

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a program in a template can fail with."""


WORDS = "\ue000"
"""Stands for what a user will say: a character for private use, which no template adds anything to."""


class ChatTemplate:
    """One model's template, compiled."""

    def __init__(
        self, source: str, *, bos: str, eos: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sandbox = environment = Sandbox(clock)
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = time.strftime
        self._compile: Callable[[], Template] = lambda: environment.from_string(source)
        self._template: Template | None = None
        self._constants = {"bos_token": bos, "eos_token": eos}

    def opening(self, messages: Sequence[Mapping[str, Any]], answer: str, kwargs: Mapping[str, Any]) -> str:
        """The next turn's prompt up to where the user's own words will begin.

        Raises `BadRequest` as `render` does.
        """
        next_turn = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": WORDS}]
        return self.render(next_turn, kwargs).rpartition(WORDS)[0]

    def render(self, messages: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]) -> str:
        """The prompt text. Raises `BadRequest` if the template refuses the messages or cannot be run."""
        variables = {"add_generation_prompt": True, "tools": None, **kwargs, **self._constants}
        try:
            if self._template is None:
                self._template = self._compile()
            with self._sandbox.time_limit():
                return _bounded(self._template.generate(messages=messages, **variables))
        except SecurityError as exc:
            raise BadRequest(f"the model's chat template did something unsafe: {exc}") from exc
        except TemplateError as exc:
            raise BadRequest(
                f"the model's chat template refuses these messages: {exc}", param="messages"
            ) from exc
        except FAILURES as exc:
            raise BadRequest(
                f"the model's chat template fails on these messages: {type(exc).__name__}: {exc}",
                param="messages",
            ) from exc


def _bounded(pieces: Any) -> str:
    parts, size = [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > MAX_CHARS:
            raise BadRequest(f"the model's chat template renders more than {MAX_CHARS} characters")
    return "".join(parts)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As `transformers` has it: no HTML escapes, characters as they are."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
