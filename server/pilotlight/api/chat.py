"""POST /v1/chat/completions: OpenAI's chat dialect."""

from pydantic import Field, ValidationInfo, field_validator
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api import body, classes, fields
from pilotlight.api.edge import Exchange
from pilotlight.api.messages import Message
from pilotlight.api.reply import Reply
from pilotlight.api.schema import MAX_COUNT, FreeForm, GenerateBody, invalid
from pilotlight.api.service import Service
from pilotlight.api.writer import Shape, Writer
from pilotlight.core import Model, Prompt, Request


class ChatBody(GenerateBody):
    """The body of a chat request."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_COUNT)
    chat_template_kwargs: FreeForm | None = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_max_tokens(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("max_tokens") not in (None, value):
            raise invalid("is max_tokens by another name; both are given and differ")
        return value

    def request(self, request_id: str, model: Model) -> Request:
        """What is asked of the model."""
        messages = tuple(message.for_template() for message in self.messages)
        return Request(
            id=request_id,
            model=model.name,
            prompt=Prompt(messages=messages, template_kwargs=self.chat_template_kwargs or {}),
            sampling=self.sampling(model),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=self.stops,
            n=self.n or 1,
            ignore_eos=bool(self.ignore_eos),
            cache_prompt=self.cache_prompt is not False,
            keep_alive_s=self.keep_alive,
        )


DIALECT = body.Dialect(ChatBody, fields.CHAT)

SHAPE = Shape(
    id_prefix="chatcmpl-",
    object="chat.completion",
    chunk_object="chat.completion.chunk",
    before_text=b',"delta":{"content":',
    after_text=b"}",
    no_text=b',"delta":{}',
    role=b',"delta":{"role":"assistant","content":"","refusal":null}',
    message=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
)


async def chat(http: HttpRequest, service: Service) -> Response:
    """Answer one chat request."""
    exchange = Exchange.of(http.scope)
    asked, warnings = await body.read(http, DIALECT, service.config.server)
    model = await service.catalog.find(asked.model)
    exchange.model = model.name
    request = classes.classified(asked.request(exchange.id, model), http, asked.service_tier, service.classes)
    writer = Writer(
        SHAPE,
        exchange.id,
        model,
        tier=classes.TIERS_USED[request.request_class],
        include_usage=asked.include_usage,
        warnings=warnings,
    )
    return Reply(service, request, writer, stream=bool(asked.stream), warnings=warnings)
