"""Chat messages as clients send them -> what a chat template reads.

Validates shapes and roles; what a role may say to a model is the template's business.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError, from_json

from pilotlight.api.schema import ARRAY, TEXT, FreeForm, Strict, check_free, either, invalid, unsupported

_OTHER_PARTS = frozenset(
    ("image_url", "image", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file",
     "refusal")
)  # fmt: skip


def _check_part_type(kind: str) -> str:
    if kind in _OTHER_PARTS:
        raise unsupported(f"is {kind!r}; text is the only modality")
    if kind != "text":
        raise invalid("must be 'text'")
    return kind


class Part(Strict):
    """A part of a message's content; text is the only kind. `prompt_cache_breakpoint` has no effect."""

    type: Annotated[str, AfterValidator(_check_part_type)]
    text: str
    prompt_cache_breakpoint: FreeForm | None = None


class Function(Strict):
    """What an assistant called; `arguments` is JSON in a string."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call in the history of a conversation."""

    id: str
    type: Literal["function"] = "function"
    function: Function
    index: int | None = None


class Message(Strict):
    """One turn. `annotations` and null `refusal`, `audio`, `function_call` are what OpenAI's answers hold.

    `parsed` (the content once more, as an object) is what its clients add to them, `provider_specific_fields`
    (all that it does not know itself) is what LiteLLM does. They have no effect.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_calls: list[ToolCall] | None = None
    content: (
        Annotated[
            Annotated[str, Tag(TEXT)] | Annotated[list[Part], Field(min_length=1), Tag(ARRAY)],
            either("must be a string or an array of text parts"),
        ]
        | None
    ) = Field(None, validate_default=True)
    tool_call_id: str | None = Field(None, validate_default=True)
    name: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = None
    parsed: Any = None
    provider_specific_fields: Any = None

    @field_validator("tool_calls")
    @classmethod
    def _only_assistants_call(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("role") != "assistant":
            raise invalid("is only for the assistant")
        return value

    @field_validator("content")
    @classmethod
    def _says_something(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and not info.data.get("tool_calls"):
            raise invalid("is required")
        return value

    @field_validator("tool_call_id")
    @classmethod
    def _results_name_their_call(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is None) is (info.data.get("role") == "tool"):
            raise invalid("is required" if value is None else "is only for the role tool")
        return value

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it; fields that were not given are absent."""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self._text(),
        }
        for name in ("name", "tool_call_id", "reasoning_content"):
            if (value := getattr(self, name)) is not None:
                message[name] = value
        if self.tool_calls:
            message["tool_calls"] = [_call(call) for call in self.tool_calls]
        return message

    def _text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": _arguments(call.function.arguments)}
    return {"id": call.id, "type": call.type, "function": function}


def _arguments(text: str) -> dict[str, Any] | str:
    """Templates expect an object; what the model wrote may not be one."""
    try:
        value = check_free(from_json(text, allow_inf_nan=False))
    except (ValueError, PydanticCustomError):
        return text
    return value if isinstance(value, dict) else text
