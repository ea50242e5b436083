"""OpenAI's response objects for one request, as bytes. What differs between dialects is a `Shape`.

The constant parts of a streamed chunk are encoded once per request, so a token costs one JSON string
and a concatenation. Knows no connections.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from pilotlight import __version__
from pilotlight.api import sse
from pilotlight.api.tally import Usage
from pilotlight.core import FinishReason, Model

_encode = msgspec.json.Encoder().encode


class Choice(Struct, frozen=True):
    """A whole answer: its text and why it ended."""

    text: str
    reason: FinishReason


class Shape(Struct, frozen=True):
    """How a dialect writes a choice. The bytes are JSON members of a streamed choice, after its index."""

    id_prefix: str
    object: str
    chunk_object: str
    before_text: bytes
    after_text: bytes
    no_text: bytes
    role: bytes | None
    """What an answer opens with, if it opens with anything."""
    message: Callable[[str], dict[str, Any]]
    """The members of a whole choice that hold the text."""


class Writer:
    """Writes one request's answers in one dialect; events are complete server-sent events."""

    def __init__(
        self,
        shape: Shape,
        request_id: str,
        model: Model,
        *,
        tier: str,
        include_usage: bool,
        warnings: Sequence[str],
        policy: Mapping[str, Any] | None = None,
    ) -> None:
        self._shape = shape
        self._head = {
            "id": shape.id_prefix + request_id,
            "object": shape.object,
            "created": int(time.time()),
            "model": model.name,
            "service_tier": tier,
            "system_fingerprint": fingerprint(model),
        }
        said = {"warnings": warnings, "policy": policy}
        self._remarks = {name: remark for name, remark in said.items() if remark}
        self._include_usage = include_usage
        self._event = b"data: " + _encode({**self._head, "object": shape.chunk_object})[:-1]
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._after_text = shape.after_text + b',"logprobs":null,"finish_reason":null}]' + self._end
        self._opened: dict[int, bytes] = {}

    def chunk(self, index: int, text: str) -> bytes:
        """Some text of answer `index`."""
        opening = b"" if index in self._opened else self._open(index)
        return (
            opening
            + self._opened[index]
            + self._shape.before_text
            + sse.lined(_encode(text))
            + self._after_text
        )

    def finish(self, index: int, reason: FinishReason) -> bytes:
        """The end of answer `index`."""
        opening = b"" if index in self._opened else self._open(index)
        close = b',"logprobs":null,"finish_reason":"%s"}]' % reason.value.encode()
        return opening + self._opened[index] + self._shape.no_text + close + self._remarked() + self._end

    def ending(self, usage: Usage) -> bytes:
        """The end of the stream."""
        if not self._include_usage:
            return sse.DONE
        end = b"}\n\n" + sse.DONE
        return self._event + b',"choices":[],"usage":' + _encode(usage.body()) + self._remarked() + end

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """Everything at once."""
        return sse.lined(
            _encode(
                {
                    **self._head,
                    "choices": [self._whole_choice(index, choice) for index, choice in enumerate(choices)],
                    "usage": usage.body(),
                    **self._remarks,
                }
            )
        )

    def _open(self, index: int) -> bytes:
        """The events that open answer `index`, if the dialect has them; from now on it is open.

        So are those before it: openai-python takes the first it hears of for answer 0, the next for 1.
        """
        opening = b""
        for number in range(len(self._opened), index + 1):
            start = self._opened[number] = self._event + b',"choices":[{"index":%d' % number
            if self._shape.role is not None:
                opening += start + self._shape.role + b',"logprobs":null,"finish_reason":null}]' + self._end
        return opening

    def _remarked(self) -> bytes:
        """The remarks, as further members of an event."""
        return b"," + sse.lined(_encode(self._remarks))[1:-1] if self._remarks else b""

    def _whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message = self._shape.message(choice.text)
        return {"index": index, **message, "logprobs": None, "finish_reason": choice.reason}


def fingerprint(model: Model) -> str:
    """The same as long as the model's file and this server are; our dependencies pin the runtimes."""
    identity = f"{__version__} {model.runtime} {model.name} {model.path} {model.created}"
    return "fp_" + hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]
