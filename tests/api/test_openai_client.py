"""The stock OpenAI client, synchronous and not, against the real server."""

from collections.abc import Callable
from typing import Any

import anyio
import openai
import pytest
from fake_service import FakeService, backwards, fail, say

from pilotlight.core import Accepted, Chunk
from pilotlight.errors import Busy, ContextOverflow, RuntimeMissing, WorkerFailed

MESSAGES: Any = [{"role": "user", "content": "hi"}]


async def called(url: str, call: Callable[[openai.OpenAI], Any]) -> Any:
    """The synchronous client, in a thread."""

    def run() -> Any:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return call(client)

    return await anyio.to_thread.run_sync(run)


async def test_a_chat(url: str) -> None:
    """The whole way."""
    answer = await called(url, lambda c: c.chat.completions.create(model="tiny", messages=MESSAGES))
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage.total_tokens == 9
    assert answer._request_id == answer.id.removeprefix("chatcmpl-")


async def test_a_chat_in_the_background(url: str) -> None:
    """By the field that the client has for it."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = await client.chat.completions.create(model="tiny", messages=MESSAGES, service_tier="flex")
    assert answer.service_tier == "flex"


async def test_a_streamed_chat(url: str) -> None:
    """Chunks add up to the answer."""
    stream: Callable[[openai.OpenAI], Any] = lambda c: list(  # noqa: E731  # a name for its type
        c.chat.completions.create(
            model="tiny", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    chunks = await called(url, stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert chunks[-1].usage.completion_tokens == 2


async def test_the_client_s_own_stream_helper(url: str) -> None:
    """It assembles the chunks and checks them as it goes."""
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client,
        client.chat.completions.stream(model="tiny", messages=MESSAGES) as stream,
    ):
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello"
    assert final.choices[0].finish_reason == "stop"


async def test_what_the_stream_helper_gives_can_be_sent_back(service: FakeService, url: str) -> None:
    """With the fields of its own."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        async with client.chat.completions.stream(model="tiny", messages=MESSAGES) as stream:
            message: Any = (await stream.get_final_completion()).choices[0].message
        await client.chat.completions.create(model="tiny", messages=[*MESSAGES, message, *MESSAGES])
    assert service.requests[1].prompt.messages == (
        *MESSAGES,
        {"role": "assistant", "content": "Hello"},
        *MESSAGES,
    )


async def test_the_stream_helper_hears_a_later_answer_first(service: FakeService, url: str) -> None:
    """It knows answers by the order in which they open."""
    service.script = backwards
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client,
        client.chat.completions.stream(model="tiny", messages=MESSAGES, n=3) as stream,
    ):
        final = await stream.get_final_completion()
    assert [(choice.index, choice.message.content) for choice in final.choices] == [
        (0, "Hello"),
        (1, "Hello"),
        (2, "Hello"),
    ]


async def test_an_async_completion(url: str) -> None:
    """The plain dialect."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = await client.completions.create(model="tiny", prompt="hi", extra_body={"top_k": 3})
        chunks = [
            chunk async for chunk in await client.completions.create(model="tiny", prompt="hi", stream=True)
        ]
    assert answer.choices[0].text == "Hello"
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello"


async def test_models(url: str) -> None:
    """Listed and looked up; the client percent-encodes slashes."""
    assert [model.id for model in await called(url, lambda c: list(c.models.list()))] == ["tiny", "org/large"]
    assert (await called(url, lambda c: c.models.retrieve("org/large"))).owned_by == "pilotlight"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ContextOverflow("x", param="messages"), openai.BadRequestError),
        (Busy("x"), openai.RateLimitError),
        (WorkerFailed("x"), openai.InternalServerError),
        (RuntimeMissing("x"), openai.InternalServerError),
    ],
)
async def test_errors_are_the_classes_clients_catch(
    service: FakeService, url: str, error: Any, kind: type[openai.APIStatusError]
) -> None:
    """With code and parameter."""
    service.script = fail(error)
    with pytest.raises(kind) as caught:
        await called(url, lambda c: c.chat.completions.create(model="tiny", messages=MESSAGES))
    assert (caught.value.code, caught.value.param) == (error.code, error.param)


async def test_what_stays_refused_is_not_tried_again(service: FakeService, url: str) -> None:
    """The client would by itself, twice."""
    service.script = fail(RuntimeMissing("x"))
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert len(service.requests) == 1


async def test_an_error_in_a_stream_is_raised(service: FakeService, url: str) -> None:
    """After what came before it."""
    service.script = fail(WorkerFailed("it died"), after=[Accepted(1), Chunk(0, "one", 1)])
    words = []

    def stream(client: openai.OpenAI) -> None:
        for chunk in client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True):
            words.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="it died"):
        await called(url, stream)
    assert "one" in words


async def test_comments_are_no_chunks(service: FakeService, url: str) -> None:
    """The client skips what keeps the connection alive."""
    service.settings(accept_s=0, keepalive_s=0.01)
    service.script = say("Hello")
    answer = await called(url, lambda c: list(c.completions.create(model="tiny", prompt="hi", stream=True)))
    assert answer[0].choices[0].text == "Hello"


async def test_an_unknown_model_is_not_found(url: str) -> None:
    """As OpenAI answers it."""
    with pytest.raises(openai.NotFoundError, match="tiny"):
        await called(url, lambda c: c.completions.create(model="tinyy", prompt="x"))
