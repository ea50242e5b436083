"""POST /v1/chat/completions: shapes, and what reaches the model."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_service import FakeService, backwards, fail, say
from structlog.testing import capture_logs

from pilotlight.api.writer import fingerprint
from pilotlight.core import Accepted, Chunk, FinishReason, Model, Prompt, Sampling
from pilotlight.errors import (
    Busy,
    Conflict,
    ContextOverflow,
    DiskFull,
    Error,
    Internal,
    NoMemory,
    NoRollback,
    RuntimeMissing,
    ShuttingDown,
    ThermalCritical,
    Unloaded,
    WorkerFailed,
)

PATH = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def events(text: str) -> list[Any]:
    """The objects of a stream, whose last event is [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_an_alias_is_answered_under_the_model_s_name(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """The client sees what served it, and so do the metrics."""
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.json()["model"] == service.requests[0].model == "tiny"
    assert (
        'pilotlight_requests_total{endpoint="/v1/chat/completions",model="tiny"'
        in service.metrics.text().decode()
    )


async def test_a_whole_answer_has_openai_s_shape(service: FakeService, client: httpx.AsyncClient) -> None:
    """Every field that clients read."""
    service.script = say("Hel", "lo", cached=3)
    answer = (await client.post(PATH, json=BODY)).json()
    assert answer.pop("id") == f"chatcmpl-{service.requests[0].id}"
    assert answer.pop("created") > 1_700_000_000
    assert answer.pop("system_fingerprint").startswith("fp_")
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    assert answer == {
        "object": "chat.completion",
        "model": "tiny",
        "service_tier": "default",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }


async def test_n_answers_share_one_prompt(service: FakeService, client: httpx.AsyncClient) -> None:
    """Usage counts the prompt once and all answers."""
    service.script = say("x", "y", reason=FinishReason.LENGTH)
    answer = (await client.post(PATH, json=BODY | {"n": 3})).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (7, 6)


async def test_a_stream_has_openai_s_shape(client: httpx.AsyncClient) -> None:
    """Role, text, finish, [DONE]; the same id throughout."""
    response = await client.post(PATH, json=BODY | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response.text)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hello"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_is_streamed_when_asked_for(client: httpx.AsyncClient) -> None:
    """In a last chunk without choices; the others say null."""
    asked = BODY | {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = events((await client.post(PATH, json=asked)).text)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 9


async def test_streamed_answers_are_told_apart(client: httpx.AsyncClient) -> None:
    """Each has a role, a text and a finish."""
    chunks = events((await client.post(PATH, json=BODY | {"stream": True, "n": 2})).text)
    assert sorted(chunk["choices"][0]["index"] for chunk in chunks) == [0, 0, 0, 1, 1, 1]


async def test_streamed_answers_open_in_their_order(service: FakeService, client: httpx.AsyncClient) -> None:
    """Whichever speaks first, and each once."""
    service.script = backwards
    asked = BODY | {"stream": True, "n": 3, "stream_options": {"include_usage": True}}
    *chunks, last = events((await client.post(PATH, json=asked)).text)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["index"] for choice in choices if "role" in choice["delta"]] == [0, 1, 2]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 2, 1, 0, 2, 1, 0]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["usage"]["completion_tokens"] == 3


async def test_any_text_survives(service: FakeService, client: httpx.AsyncClient) -> None:
    """Line breaks of every kind, quotes, emoji; also if somebody reads by lines, of whatever kind."""
    text = 'a\r\n\n"b"\u2028\u2029\x85\\n😀'
    service.script = say(text)
    stream, whole = [
        await client.post(PATH, json=BODY | {"stream": is_stream}) for is_stream in (True, False)
    ]
    assert events(stream.text)[1]["choices"][0]["delta"]["content"] == text
    assert whole.json()["choices"][0]["message"]["content"] == text
    assert len(stream.text.splitlines()) == stream.text.count("\n")
    assert len(whole.text.splitlines()) == 1


async def test_any_error_survives(service: FakeService, client: httpx.AsyncClient) -> None:
    """It may have words of a template, or of a message."""
    service.script = fail(WorkerFailed("one\u2028two"), after=[Accepted(3), Chunk(0, "a", 1)])
    stream = await client.post(PATH, json=BODY | {"stream": True})
    assert "one\\u2028two" in stream.text


async def test_an_answer_without_text_still_opens(service: FakeService, client: httpx.AsyncClient) -> None:
    """The model ended its turn at once."""
    service.script = say()
    chunks = events((await client.post(PATH, json=BODY | {"stream": True})).text)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


async def test_the_request_reaches_the_model_whole(service: FakeService, client: httpx.AsyncClient) -> None:
    """Field by field."""
    asked = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 5,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repetition_penalty": 1.5,
        "repeat_last_n": 9,
        "presence_penalty": -1,
        "frequency_penalty": 1,
        "logit_bias": {"5": -100},
        "seed": 3,
        "max_completion_tokens": 4,
        "stop": "end",
        "n": 2,
        "ignore_eos": True,
        "cache_prompt": False,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    await client.post(PATH, json=BODY | asked)
    (request,) = service.requests
    assert request.sampling == Sampling(0, 0.5, 5, 0.1, 0.9, 1.5, 9, -1, 1, ((5, -100),), 3)
    assert request.prompt == Prompt(
        messages=({"role": "user", "content": "hi"},), template_kwargs={"enable_thinking": False}
    )
    assert (request.max_tokens, request.stop, request.n) == (4, ("end",), 2)
    assert (request.ignore_eos, request.cache_prompt) == (True, False)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.5), ("repetition_penalty", 1.5), ("seed", 1), ("logit_bias", {"1": 2})],
)
async def test_what_the_runtime_cannot_do_is_refused_by_name(
    service: FakeService, client: httpx.AsyncClient, field: str, value: Any
) -> None:
    """The field, the runtime and the model; nothing is submitted."""
    response = await client.post(PATH, json=BODY | {"model": "org/large", field: value})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", field)
    assert f"{field} is not supported by llamacpp, the runtime of org/large" in error["message"]
    assert not service.requests


async def test_a_value_that_asks_nothing_needs_no_capability(client: httpx.AsyncClient) -> None:
    """Clients send defaults along."""
    asked = BODY | {"model": "org/large", "temperature": 1, "top_p": 1, "seed": -1, "repeat_penalty": 1.0}
    assert (await client.post(PATH, json=asked)).status_code == 200


async def test_absent_sampling_comes_from_the_model(service: FakeService, client: httpx.AsyncClient) -> None:
    """Then from the defaults; -1 means "fresh" or "off" to local clients."""
    await client.post(PATH, json=BODY | {"seed": -1, "top_k": -1, "stop": []})
    (request,) = service.requests
    assert request.sampling == Sampling(temperature=0.25)
    assert (request.max_tokens, request.stop, request.n) == (None, (), 1)


async def test_an_unknown_model_is_a_404(service: FakeService, client: httpx.AsyncClient) -> None:
    """With the nearest name, and nothing submitted."""
    response = await client.post(PATH, json=BODY | {"model": "tinny"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert "'tiny'" in response.json()["error"]["message"]
    assert not service.requests


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        ContextOverflow("long", param="messages"),
        Busy("full", retry_after_s=4),
        WorkerFailed("died"),
        Internal("bug"),
    ],
)
async def test_a_refusal_has_a_proper_status(
    service: FakeService, client: httpx.AsyncClient, error: Any, stream: bool
) -> None:
    """Also of a stream that has not begun."""
    service.script = fail(error)
    response = await client.post(PATH, json=BODY | {"stream": stream})
    assert response.status_code == error.status
    assert response.json() == error.body()
    assert response.headers.get("retry-after") == (str(error.retry_after_s) if error.retry_after_s else None)


@pytest.mark.parametrize(
    ("error", "should_retry"),
    [
        (RuntimeMissing("no onnx"), "false"),
        (DiskFull("full"), "false"),
        (Conflict("not over"), "false"),
        (NoRollback("the first"), "false"),
        (Unloaded("stopped"), "false"),
        (ThermalCritical("hot"), "false"),
        (ThermalCritical("hot", retry_after_s=4), None),
        (WorkerFailed("died"), None),
        (Busy("full"), None),
        (NoMemory("short"), None),
        (ShuttingDown("stopping"), None),
    ],
)
async def test_clients_are_told_what_is_not_worth_another_try(
    service: FakeService, client: httpx.AsyncClient, error: Error, should_retry: str | None
) -> None:
    """What is otherwise a moment later, they may try again."""
    service.script = fail(error)
    response = await client.post(PATH, json=BODY)
    assert response.headers.get("x-should-retry") == should_retry


async def test_a_bug_is_a_500_in_the_same_shape(service: FakeService, client: httpx.AsyncClient) -> None:
    """Naming the request, not the exception."""

    def script(*_: Any) -> None:
        raise RuntimeError("a " + "secret")

    service.script = script
    with capture_logs() as logs:
        response = await client.post(PATH, json=BODY)
    service.requests.clear()
    assert "a secret" not in str(logs)
    assert "fake_service.py" in str(logs)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "a secret" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("GET", PATH, 405), ("PUT", PATH, 405)]
)
async def test_what_no_route_takes_has_the_same_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    """Path and method errors too."""
    response = await client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code", "source"}
    assert response.headers["x-request-id"]
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


async def test_a_method_is_refused_by_all_that_there_are(client: httpx.AsyncClient) -> None:
    """Also where each has a route of its own."""
    assert (await client.put("/v1/batches/x")).headers["allow"] == "DELETE, GET, HEAD"


async def test_a_path_of_openai_s_that_is_not_there_does_not_look_like_a_wrong_base_url(
    client: httpx.AsyncClient,
) -> None:
    """It is under /v1 already."""
    (missing, misplaced) = [(await client.post(path)).json()["error"]["message"] for path in ("/v1/x", "/x")]
    assert missing == "there is no '/v1/x'; /openapi.json names all that is"
    assert misplaced == "there is no '/x'; OpenAI's API is under /v1"


def test_a_model_may_lie_where_the_name_is_no_text() -> None:
    """The system takes any bytes."""
    assert fingerprint(Model("m", Path("/mod\udce9les/a.gguf"))).startswith("fp_")
