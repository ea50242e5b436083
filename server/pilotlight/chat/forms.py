"""The form in which a template reads messages: some read text only in parts, or calls only beside no content.

A template drops what has another form, in silence, so it is asked: what is said to it in a form must be in
what it renders. Knows nothing of Jinja.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from msgspec import Struct

from pilotlight.errors import BadRequest

Message = Mapping[str, Any]

WORDS = "\ue000"
"""Stands for what somebody will say: a character for private use, which no template adds anything to."""

CHANNEL = "<|channel|>"
"""What gpt-oss thinks begins with it, and what it answers; its template takes only the answer."""

START = "<|start|>assistant"
"""What a prompt ends with, so an answer's first header lacks it."""

# A header may say whom its message is for, and that it is JSON. Each part is looked for up to the next `<`:
# whatever a client sends, the time is linear.
STARTED = r"<\|start\|>assistant(?: to=[^<]*)?"
TYPE = r"[^<]*(?:<\|constrain\|>[^<]*)?"
FINAL = re.compile(rf".*<\|channel\|>final{TYPE}<\|message\|>", re.DOTALL)
THOUGHT = re.compile(rf"(?:{STARTED})?<\|channel\|>(?:analysis|commentary).*?(?:<\|end\|>|\Z)", re.DOTALL)
HALF_HEADER = re.compile(rf"(?:{STARTED}(?:<\|channel\|>{TYPE})?|<\|start\|>)\Z")


class CallForm(Struct, frozen=True):
    """How an assistant's calls are given."""

    is_alone: bool = False
    """In a message whose content is none."""
    has_text: bool = False
    """Their arguments are JSON in a string."""

    def of(self, message: Message) -> Iterator[Message]:
        """The message, which has calls; two if what it says needs one of its own."""
        calls = [self._call(call) for call in message["tool_calls"]]
        content = message.get("content")
        if self.is_alone and content:
            yield {"role": message["role"], "content": content}
        yield {**message, "content": None if self.is_alone else content, "tool_calls": calls}

    def _call(self, call: Message) -> Message:
        function = call["function"]
        if not self.has_text or isinstance(function["arguments"], str):
            return call
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        return {**call, "function": {**function, "arguments": arguments}}


CALL_FORMS = tuple(CallForm(is_alone, has_text) for is_alone in (False, True) for has_text in (False, True))
"""The first is the usual one."""

CALL_ID = "000000000"
"""Mistral's templates want so many letters and digits."""

CALL = {"id": CALL_ID, "type": "function", "function": {"name": WORDS, "arguments": {"a": "b"}}}
CALLED: tuple[Message, ...] = (
    {"role": "user", "content": "?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "!", "tool_call_id": CALL_ID},
)
"""A conversation up to a call's result: some templates pass over calls that nothing follows."""


class Forms:
    """What one template reads, found out when it is first needed."""

    def __init__(self, source: str, render: Callable[[list[Message]], str]) -> None:
        """`render` raises `BadRequest` for what the template refuses."""
        self._render = render
        self._has_channels = CHANNEL in source

    def of(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template reads them, and in a list: some join others to it."""
        return [self._in_parts(one) for message in messages for one in self._with_calls(message)]

    def _with_calls(self, message: Message) -> Iterator[Message]:
        content = message.get("content")
        if self._has_channels and message.get("role") == "assistant" and isinstance(content, str):
            message = {**message, "content": _answer(content)}
        return self._calls.of(message) if message.get("tool_calls") else iter((message,))

    def _in_parts(self, message: Message) -> Message:
        content = message.get("content")
        return _in_parts(message) if isinstance(content, str) and self._reads_only_parts else message

    @cached_property
    def _reads_only_parts(self) -> bool:
        said = {"role": "user", "content": WORDS}
        return not self._reads([said]) and self._reads([_in_parts(said)])

    @cached_property
    def _calls(self) -> CallForm:
        return next((form for form in CALL_FORMS if self._reads_calls(form)), CALL_FORMS[0])

    def _reads_calls(self, form: CallForm) -> bool:
        """A template that writes arguments as it is given them writes an object as Python does: no JSON."""
        asked, called, result = CALLED
        given = list(form.of(called))
        arguments = given[-1]["tool_calls"][0]["function"]["arguments"]
        text = self._rendered([self._in_parts(message) for message in (asked, *given, result)])
        return WORDS in text and repr(arguments) not in text

    def _reads(self, messages: list[Message]) -> bool:
        return WORDS in self._rendered(messages)

    def _rendered(self, messages: list[Message]) -> str:
        """Nothing, if the template refuses them."""
        try:
            return self._render(messages)
        except BadRequest:
            return ""


def _in_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _answer(content: str) -> str:
    """Without the thoughts before it, nor a header that it was cut in."""
    whole = START + content
    if final := FINAL.match(whole):
        answer = whole[final.end() :]
    else:
        answer = HALF_HEADER.sub("", THOUGHT.sub("", whole)).removeprefix(START)
    return answer.removesuffix("<|end|>")
