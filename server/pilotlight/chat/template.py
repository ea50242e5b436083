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

from pilotlight.chat.forms import WORDS, Forms, Message
from pilotlight.chat.sandbox import Sandbox
from pilotlight.errors import BadRequest

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a program in a template can fail with; Python compiles what Jinja makes of it, and may refuse that."""

MAX_WORDS = 1000
"""Characters of an error that a template may choose."""

MAX_FORMAT = 256
"""Characters of a date's format: `strftime` makes up to 256 times as many of them."""


class ChatTemplate:
    """One model's template, compiled."""

    def __init__(
        self, source: str, *, bos: str, eos: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sandbox = environment = Sandbox(clock)
        environment.add_filter("tojson", _tojson)
        environment.globals["raise_exception"] = self._raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._compile: Callable[[], Template] = lambda: environment.from_string(source)
        self._template: Template | None = None
        self._constants = {"bos_token": bos, "eos_token": eos}
        self._forms = Forms(source, lambda messages: self._render(messages, {}))

    def opening(self, messages: Sequence[Mapping[str, Any]], answer: str, kwargs: Mapping[str, Any]) -> str:
        """The next turn's prompt up to where the user's own words will begin.

        Raises `BadRequest` as `render` does.
        """
        next_turn = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": WORDS}]
        return self.render(next_turn, kwargs).rpartition(WORDS)[0]

    def render(self, messages: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]) -> str:
        """The prompt text. Raises `BadRequest` if the template refuses the messages or cannot be run."""
        return self._render(self._forms.of(messages), kwargs)

    def _render(self, messages: list[Message], kwargs: Mapping[str, Any]) -> str:
        variables = {"add_generation_prompt": True, "tools": None, **kwargs, **self._constants}
        try:
            if self._template is None:
                self._template = self._compile()
            with self._sandbox.limits():
                text = self._sandbox.concat(self._template.generate(messages=messages, **variables))
            text.encode()  # a tokenizer does so, where nobody expects that it fails
            return text
        except SecurityError as exc:
            raise BadRequest(f"the model's chat template did something unsafe: {_words(exc)}") from exc
        except TemplateError as exc:
            raise BadRequest(
                f"the model's chat template refuses these messages: {_words(exc)}", param="messages"
            ) from exc
        except FAILURES as exc:
            raise BadRequest(
                f"the model's chat template fails on these messages: {type(exc).__name__}: {_words(exc)}",
                param="messages",
            ) from exc

    def _raise_exception(self, message: Any) -> None:
        raise TemplateError(self._sandbox.text(message))


def _words(exc: Exception) -> str:
    """What it says: not too long, and nothing that cannot be sent."""
    return str(exc)[:MAX_WORDS].encode(errors="replace").decode()


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


def _strftime_now(form: str) -> str:
    if len(form) > MAX_FORMAT:
        raise ValueError(f"a date's format has {len(form)} characters, more than {MAX_FORMAT}")
    return time.strftime(form)
