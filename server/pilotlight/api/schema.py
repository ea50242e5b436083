"""The fields every generating endpoint takes, as strict pydantic models, and what they mean inside.

Strict: "5" is no number, 5.0 no integer, true no 1. `null` is as good as absent.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from pilotlight.api.problems import MEMBER
from pilotlight.core import Model, Request, Sampling
from pilotlight.errors import Unsupported
from pilotlight.registry import keep_alive

MAX_DEPTH = 32
"""Of free-form objects; a chat template or a tool schema has no use for more."""
MAX_COUNT = 2**31 - 1
"""Token counts are 32-bit in every runtime."""
_TOKEN = re.compile(r"0|[1-9][0-9]{0,9}")
"""As JSON writes a number, so that no token is there twice."""
_INT64 = range(-(2**63), 2**63)

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n",
             "presence_penalty", "frequency_penalty")  # fmt: skip

_ASKS = {name: name for name in (*_SAMPLING, "logit_bias", "seed")} | {"repetition_penalty": "repeat_penalty"}
"""Fields of a body by what they ask for: a field of `Sampling`."""

T = TypeVar("T")


class Strict(BaseModel):
    """Base of everything in a body."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def invalid(message: str) -> PydanticCustomError:
    """What a validator raises; the field's path is put in front."""
    return PydanticCustomError("invalid", message)


def unsupported(message: str) -> PydanticCustomError:
    """As `invalid`, for what OpenAI knows and this server does not do."""
    return PydanticCustomError("unsupported", message)


def check_free(value: T, depth: int = MAX_DEPTH) -> T:
    """Free-form JSON that every process behind us can carry: not too deep, numbers of 64 bits."""
    if depth == 0:
        raise invalid(f"must not be nested deeper than {MAX_DEPTH}")
    if isinstance(value, int) and value not in _INT64:
        raise invalid("must not hold integers of more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid("must not hold numbers out of range")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            check_free(item, depth - 1)
    return value


def either(message: str) -> Discriminator:
    """Tells a `TEXT` from an `ARRAY`, so that an error names the field and not pydantic's union members."""
    tags: dict[type, str] = {str: TEXT, list: ARRAY}
    return Discriminator(lambda value: tags.get(type(value)), "invalid", message)


def _check_bias(bias: dict[str, float]) -> dict[str, float]:
    for token, value in bias.items():
        if not (_TOKEN.fullmatch(token) and int(token) <= MAX_COUNT):
            raise invalid("must have token ids as keys")
        if not -100 <= value <= 100:
            raise invalid("must have values from -100 to 100")
    return bias


def duration(value: Any, wrong: str) -> float:
    """In seconds, infinite for never. What is none is refused as `wrong`."""
    # Booleans are integers to Python, and no duration to anybody.
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise invalid(wrong)
    try:
        return keep_alive.seconds(value, wrong)
    except ValueError as exc:
        raise invalid(str(exc)) from exc


def _keep_alive(value: Any) -> float:
    return duration(value, keep_alive.WRONG)


FreeForm = Annotated[dict[str, Any], AfterValidator(check_free)]
KeepAlive = Annotated[float, PlainValidator(_keep_alive, json_schema_input_type=float | str)]
"""Seconds, or a duration in words; comes out as seconds, infinite for never."""
TEXT, ARRAY = f"{MEMBER}string", f"{MEMBER}array"
"""Tags of members of unions."""
Tier = Literal["auto", "default", "flex", "scale", "priority", "fast"]
"""OpenAI's classes of requests."""
_Stop = Annotated[str, StringConstraints(min_length=1)]


class StreamOptions(Strict):
    """`include_obfuscation` has no effect: nothing is padded."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class GenerateBody(Strict):
    """What chat and plain completions have in common."""

    model: str = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_COUNT)
    n: int | None = Field(None, ge=1, le=16)
    stop: (
        Annotated[
            Annotated[_Stop, Tag(TEXT)] | Annotated[list[_Stop], Field(max_length=16), Tag(ARRAY)],
            either("must be a string or an array of strings"),
        ]
        | None
    ) = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=MAX_COUNT, description="0 or -1: off")
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    repetition_penalty: float | None = Field(None, gt=0, le=10, description="repeat_penalty")
    repeat_last_n: int | None = Field(None, ge=0, le=MAX_COUNT)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Annotated[dict[str, float], AfterValidator(_check_bias)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="-1: a fresh one")
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None
    service_tier: Tier | None = Field(None, description="flex: in the background")
    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded afterwards")
    user: str | None = Field(None, description="Without effect, as the following")
    metadata: FreeForm | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: FreeForm | None = None
    safety_identifier: str | None = None

    @field_validator("stream_options")
    @classmethod
    def _only_when_streaming(cls, value: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise invalid("is only for requests with stream: true")
        return value

    @field_validator("repetition_penalty")
    @classmethod
    def _one_repeat_penalty(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("repeat_penalty") not in (None, value):
            raise invalid("is repeat_penalty by another name; both are given and differ")
        return value

    def request(self, request_id: str, model: Model) -> Request:
        """What is asked of the model."""
        raise NotImplementedError

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self, model: Model) -> Sampling:
        """The request's own values, then the model's, then the defaults.

        Raises `Unsupported` for a value that the model's runtime cannot honour.
        """
        given = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        if self.repetition_penalty is not None:
            given["repeat_penalty"] = self.repetition_penalty
        values: Mapping[str, Any] = {**model.sampling, **given}
        sampling = Sampling(
            **{**values, "top_k": max(values.get("top_k", 0), 0)},
            logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
            seed=None if self.seed == -1 else self.seed,
        )
        self._check(sampling, model)
        return sampling

    def _check(self, sampling: Sampling, model: Model) -> None:
        neutral = Sampling()
        for field, name in _ASKS.items():
            is_asked = getattr(self, field) is not None and getattr(sampling, name) != getattr(neutral, name)
            if is_asked and name not in model.capabilities.sampling:
                raise Unsupported(
                    f"{field} is not supported by {model.runtime}, the runtime of {model.name}", param=field
                )
