"""The stock openai-python client against a real daemon, synchronous and not."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest

from serving import Daemon, until

MESSAGES: Any = [{"role": "user", "content": "one two three"}]
WHOLE = "one two three "


def options(daemon: Daemon) -> dict[str, Any]:
    return {"base_url": f"{daemon.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 20}


@pytest.fixture
def client(served: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**options(served)) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def async_client(served: Daemon, anyio_backend: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(**options(served)) as client:
        yield client


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    """In the order of the configuration, after the built-in one."""
    assert [model.id for model in client.models.list()] == [
        "pilot",
        "pilot-onnx",
        "pilot-mlx",
        "echo",
        "slow",
        "tiny",
        "broken",
        "dying",
    ]
    assert client.models.retrieve("tiny").owned_by == "pilotlight"


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    """In one piece, with all that OpenAI promises of it."""
    answer = client.chat.completions.create(model="echo", messages=MESSAGES)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", WHOLE)
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        3,
        3,
        6,
    )
    assert (answer.model, answer.object, answer.id[:9]) == ("echo", "chat.completion", "chatcmpl-")
    assert answer.created > 0
    assert answer.system_fingerprint


def test_a_chat_is_streamed(client: openai.OpenAI) -> None:
    """Pieces of one answer that add up; the usage comes last."""
    *chunks, last = client.chat.completions.create(
        model="echo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WHOLE
    assert (chunks[0].choices[0].delta.role, chunks[-1].choices[0].finish_reason) == ("assistant", "stop")
    assert len({chunk.id for chunk in [*chunks, last]}) == 1
    assert (last.choices, last.usage and last.usage.completion_tokens) == ([], 3)


def test_usage_is_not_streamed_unasked(client: openai.OpenAI) -> None:
    """Every chunk has a choice then."""
    chunks = list(client.chat.completions.create(model="echo", messages=MESSAGES, stream=True))
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)


async def test_a_chat_without_blocking(async_client: openai.AsyncOpenAI) -> None:
    """Whole, and streamed."""
    create = async_client.chat.completions.create
    assert (await create(model="echo", messages=MESSAGES)).choices[0].message.content == WHOLE
    chunks = [chunk async for chunk in await create(model="echo", messages=MESSAGES, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WHOLE


async def test_the_stream_helper_puts_it_together(async_client: openai.AsyncOpenAI) -> None:
    """And checks the chunks on the way."""
    async with async_client.chat.completions.stream(model="echo", messages=MESSAGES) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == WHOLE


def test_completions_are_plain_text(client: openai.OpenAI) -> None:
    """Whole, and streamed."""
    answer = client.completions.create(model="echo", prompt="four five", max_tokens=2)
    assert (answer.choices[0].text, answer.object, answer.id[:5]) == (
        "four five ",
        "text_completion",
        "cmpl-",
    )
    chunks = client.completions.create(model="echo", prompt="four five", max_tokens=2, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "four five "


def test_two_answers_to_one_prompt_may_differ(client: openai.OpenAI) -> None:
    """n = 2: both sampled from a real model, each in its place."""
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, n=2, max_tokens=20, seed=1)
    first, second = answer.choices
    assert (first.index, second.index) == (0, 1)
    assert first.message.content != second.message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 40


def test_two_streamed_answers_keep_apart(client: openai.OpenAI) -> None:
    """Each chunk says whose it is."""
    texts = ["", ""]
    for chunk in client.chat.completions.create(model="echo", messages=MESSAGES, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [WHOLE, WHOLE]


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    """And another seed another one."""

    def said(seed: int) -> str | None:
        return (
            client.chat.completions.create(
                model="tiny", messages=MESSAGES, max_tokens=20, seed=seed, temperature=1
            )
            .choices[0]
            .message.content
        )

    assert said(1) == said(1) != said(2)


def test_a_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    """At its first occurrence, and is not part of it."""
    whole = client.completions.create(model="tiny", prompt="x", max_tokens=40, temperature=0).choices[0].text
    stop = whole[20:23]
    cut = client.completions.create(model="tiny", prompt="x", max_tokens=40, temperature=0, stop=[stop])
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (whole[: whole.index(stop)], "stop")


def test_the_token_limit_ends_the_answer(client: openai.OpenAI) -> None:
    """By either of its names."""
    for limit in ({"max_tokens": 7}, {"max_completion_tokens": 7}):
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES, **limit)
        assert answer.usage is not None
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 7)


def test_a_stream_can_be_left(client: openai.OpenAI, served: Daemon) -> None:
    """The daemon stops computing for it."""
    with client.chat.completions.create(
        model="slow", messages=MESSAGES, stream=True, max_tokens=100_000
    ) as stream:
        next(iter(stream))
    until(lambda: served.model("slow")["active"] == 0)


@pytest.mark.parametrize(
    ("fields", "kind", "code", "param"),
    [
        ({"model": "ecko"}, openai.NotFoundError, "model_not_found", "model"),
        ({"temperature": 99}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "unknown_parameter", "temprature"),
        (
            {"model": "tiny", "messages": [{"role": "user", "content": "long " * 3000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            "messages",
        ),
        (
            {"extra_headers": {"origin": "https://example.com"}},
            openai.PermissionDeniedError,
            "origin_not_allowed",
            None,
        ),
        ({"model": "broken"}, openai.InternalServerError, "worker_failed", None),
    ],
    ids=["model", "value", "field", "context", "origin", "worker"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_errors_are_the_classes_that_programs_catch(
    client: openai.OpenAI,
    fields: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str,
    param: str | None,
    stream: bool,
) -> None:
    """With code and parameter; before the first byte of a stream, too."""
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "echo", "messages": MESSAGES, "stream": stream, **fields})
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_full_queue_is_a_rate_limit(full: Daemon) -> None:
    """Without a time to come back as long as nobody knows one: the client has its own."""
    with openai.OpenAI(**options(full)) as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="echo", messages=MESSAGES)
    assert caught.value.code == "queue_full"
    assert "retry-after" not in caught.value.response.headers


async def test_errors_without_blocking(async_client: openai.AsyncOpenAI) -> None:
    """The same classes."""
    with pytest.raises(openai.NotFoundError, match="did you mean 'echo'"):
        await async_client.chat.completions.create(model="ecko", messages=MESSAGES)


def test_an_answer_in_the_background(client: openai.OpenAI) -> None:
    """By the tier that OpenAI has for it; the answer says it back, and so does every chunk."""
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=8, service_tier="flex"
    )
    assert answer.service_tier == "flex"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    stream = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=8, service_tier="flex", stream=True
    )
    assert {chunk.service_tier for chunk in stream} == {"flex"}


def test_a_class_nobody_knows_is_refused(client: openai.OpenAI) -> None:
    """As a bad request, by the header's name."""
    with pytest.raises(openai.BadRequestError, match="X-Request-Class"):
        client.chat.completions.create(
            model="echo", messages=MESSAGES, extra_headers={"X-Request-Class": "soon"}
        )


def test_an_error_in_mid_stream_is_raised(client: openai.OpenAI) -> None:
    """After the words that came before it, instead of an answer that just ends."""
    words = []
    stream = client.chat.completions.create(model="dying", messages=MESSAGES, max_tokens=100, stream=True)
    with stream, pytest.raises(openai.APIError, match="worker died"):
        for chunk in stream:
            words.append(chunk.choices[0].delta.content)
    assert "".join(filter(None, words))
