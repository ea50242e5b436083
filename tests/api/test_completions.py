"""POST /v1/completions: shapes and the kinds of prompt."""

import json
from typing import Any

import httpx
import pytest
from fake_service import FakeService, backwards

from pilotlight.core import Prompt
from pilotlight.power.reading import Reading

PATH = "/v1/completions"
BODY = {"model": "org/large", "prompt": "hi"}


async def test_a_whole_answer_has_openai_s_shape(client: httpx.AsyncClient) -> None:
    """Text instead of a message."""
    answer = (await client.post(PATH, json=BODY)).json()
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"]) == ("text_completion", "org/large")
    assert answer["choices"] == [{"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"]["total_tokens"] == 9


async def test_a_stream_has_openai_s_shape(client: httpx.AsyncClient) -> None:
    """No role, and the same object name as a whole answer."""
    lines = (await client.post(PATH, json=BODY | {"stream": True})).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hello", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


async def test_streamed_answers_are_told_apart(service: FakeService, client: httpx.AsyncClient) -> None:
    """None has an opening, whichever speaks first."""
    service.script = backwards
    lines = (await client.post(PATH, json=BODY | {"stream": True, "n": 2})).text.split("\n\n")
    choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
    assert [(choice["index"], choice["text"]) for choice in choices] == [
        (1, "Hello"),
        (0, "Hello"),
        (1, ""),
        (0, ""),
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("x", Prompt(text="x")),
        ("", Prompt(text="")),
        (["x"], Prompt(text="x")),
        ([1, 2], Prompt(tokens=(1, 2))),
        ([[1, 2]], Prompt(tokens=(1, 2))),
        ([7] * 100_000, Prompt(tokens=(7,) * 100_000)),
        ([[7] * 100_000], Prompt(tokens=(7,) * 100_000)),
    ],
)
async def test_a_prompt_is_text_or_tokens(
    service: FakeService, client: httpx.AsyncClient, prompt: Any, expected: Prompt
) -> None:
    """Alone, or alone in a list."""
    assert (await client.post(PATH, json=BODY | {"prompt": prompt})).status_code == 200
    assert service.requests[0].prompt == expected


@pytest.mark.parametrize(
    ("prompt", "code", "param"),
    [
        (["x", "y"], "unsupported_parameter", "prompt"),
        ([[1], [2]], "unsupported_parameter", "prompt"),
        ([], "invalid_value", "prompt"),
        ([[]], "invalid_value", "prompt[0]"),
        ([1, "x"], "invalid_value", "prompt[1]"),
        ([-1], "invalid_value", "prompt[0]"),
        ([-1] * 100_000, "invalid_value", "prompt[0]"),
        ([1.5] * 100_000, "invalid_value", None),
        (None, "invalid_value", "prompt"),
        ({}, "invalid_value", "prompt"),
        ([True], "invalid_value", "prompt[0]"),
        (["x", 1], "invalid_value", "prompt[1]"),
    ],
)
async def test_other_prompts_are_refused(
    client: httpx.AsyncClient, prompt: Any, code: str, param: str | None
) -> None:
    """Several at once by name; of many wrong tokens, the first."""
    response = await client.post(PATH, json=BODY | {"prompt": prompt})
    assert response.status_code == 400
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == (code, param)


async def test_sixteen_tokens_unless_more_are_asked_for(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """OpenAI's default for this endpoint."""
    await client.post(PATH, json=BODY)
    assert service.requests[0].max_tokens == 16


async def test_a_strict_client_gets_plain_text_where_chats_would_not_reason(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """There is no template that could be told so."""
    service.readings.now = Reading(is_saving=True)
    response = await client.post(PATH, json=BODY, headers={"X-Policy": "strict"})
    assert (response.status_code, response.headers["x-policy-action"]) == (200, "none")
    assert service.requests[0].prompt.template_kwargs == {}


@pytest.mark.parametrize(
    "field", ["echo", "suffix", "best_of", "logprobs", "messages", "max_completion_tokens"]
)
async def test_what_is_not_done_is_said(client: httpx.AsyncClient, field: str) -> None:
    """By name."""
    response = await client.post(PATH, json=BODY | {field: 5})
    assert response.json()["error"]["code"] == "unsupported_parameter"
