"""POST /v1/completions: OpenAI's plain-text dialect."""

from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api import body, fields
from pilotlight.api.asking import Asking
from pilotlight.api.problems import MEMBER
from pilotlight.api.reply import Reply
from pilotlight.api.schema import ARRAY, MAX_COUNT, TEXT, GenerateBody, invalid, unsupported
from pilotlight.api.service import Service
from pilotlight.api.writer import Shape
from pilotlight.core import Model, Prompt, Request

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint only."""

_Token = Annotated[int, Field(ge=0, le=MAX_COUNT)]


TEXTS, BATCHES = f"{MEMBER}texts", f"{MEMBER}batches"


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return TEXT
    if not isinstance(value, list):
        return None
    if value and isinstance(value[0], str | list):
        return TEXTS if isinstance(value[0], str) else BATCHES
    return ARRAY


def _one(prompts: list[Any]) -> list[Any]:
    if len(prompts) != 1:
        raise unsupported(f"holds {len(prompts)} prompts; send one per request")
    return prompts


def _not_empty(tokens: list[int]) -> list[int]:
    if not tokens:
        raise invalid("must not be empty")
    return tokens


_Tokens = Annotated[list[_Token], Field(fail_fast=True), AfterValidator(_not_empty)]
_Prompt = Annotated[
    Annotated[str, Tag(TEXT)]
    | Annotated[_Tokens, Tag(ARRAY)]
    | Annotated[list[str], AfterValidator(_one), Tag(TEXTS)]
    | Annotated[list[_Tokens], AfterValidator(_one), Tag(BATCHES)],
    Discriminator(_kind, "invalid", "must be a string or an array of token ids"),
]


class CompletionBody(GenerateBody):
    """The body of a completion request."""

    prompt: _Prompt

    def request(self, request_id: str, model: Model) -> Request:
        """What is asked of the model."""
        return Request(
            id=request_id,
            model=model.name,
            prompt=_prompt(self.prompt),
            sampling=self.sampling(model),
            max_tokens=self.max_tokens or DEFAULT_MAX_TOKENS,
            stop=self.stops,
            n=self.n or 1,
            ignore_eos=bool(self.ignore_eos),
            cache_prompt=self.cache_prompt is not False,
            keep_alive_s=self.keep_alive,
        )


def _prompt(value: str | list[int] | list[str] | list[list[int]]) -> Prompt:
    """Lists of prompts hold exactly one by now."""
    first = value if isinstance(value, str) else value[0]
    if isinstance(first, str):
        return Prompt(text=first)
    return Prompt(tokens=tuple(first if isinstance(first, list) else value))  # type: ignore[arg-type]  # ints by now


DIALECT = body.Dialect(CompletionBody, fields.COMPLETIONS, tokens="prompt")

SHAPE = Shape(
    id_prefix="cmpl-",
    object="text_completion",
    chunk_object="text_completion",
    before_text=b',"text":',
    after_text=b"",
    no_text=b',"text":""',
    role=None,
    message=lambda text: {"text": text},
)


async def complete(http: HttpRequest, service: Service) -> Response:
    """Answer one completion request."""
    asked, warnings = await body.read(http, DIALECT, service.config.server)
    return Reply(await Asking.of(http, service, asked, SHAPE, warnings))
