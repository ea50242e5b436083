"""POST /admin/models/load and /unload, and `keep_alive` in requests."""

import math
from typing import Any

import httpx
import pytest
from fake_service import FakeService

from pilotlight.errors import DoesNotFit


async def test_a_model_is_loaded_and_described(service: FakeService, client: httpx.AsyncClient) -> None:
    """As /v1/models does."""
    answer = await client.post("/admin/models/load", json={"model": "org/large", "keep_alive": "5m"})
    assert answer.json() == (await client.get("/v1/models/org/large")).json()
    assert service.loads == [("org/large", 300.0)]


async def test_a_model_is_loaded_for_longer_than_a_float_can_say(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """That is for ever."""
    body = {"model": "tiny", "keep_alive": 10**310}
    assert (await client.post("/admin/models/load", json=body)).status_code == 200
    assert service.loads == [("tiny", math.inf)]


async def test_a_model_is_unloaded(service: FakeService, client: httpx.AsyncClient) -> None:
    """And described."""
    answer = await client.post("/admin/models/unload", json={"model": "tiny"})
    assert (answer.status_code, answer.json()["id"]) == (200, "tiny")
    assert service.unloads == ["tiny"]


async def test_a_model_that_never_fits_is_a_400(service: FakeService, client: httpx.AsyncClient) -> None:
    """In OpenAI's shape, so that no client tries again."""
    service.load_error = DoesNotFit("too large", param="model")
    answer = await client.post("/admin/models/load", json={"model": "tiny"})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "too large",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_does_not_fit",
        "source": "daemon",
    }


@pytest.mark.parametrize("path", ["load", "unload"])
async def test_an_unknown_model_is_a_404(path: str, client: httpx.AsyncClient) -> None:
    """As in a request."""
    answer = await client.post(f"/admin/models/{path}", json={"model": "gpt-5"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (0, 0.0),
        (90, 90.0),
        (1.5, 1.5),
        ("5m", 300.0),
        (-1, math.inf),
        ("-1m", math.inf),
        pytest.param(10**310, math.inf, id="10**310"),
    ],
)
async def test_a_request_says_how_long_its_model_stays(
    service: FakeService, client: httpx.AsyncClient, given: Any, expected: float | None
) -> None:
    """As Ollama's clients write it, in both dialects."""
    body = {"model": "tiny", "keep_alive": given}
    await client.post("/v1/completions", json=body | {"prompt": "hi"})
    await client.post("/v1/chat/completions", json=body | {"messages": [{"role": "user", "content": "hi"}]})
    assert [request.keep_alive_s for request in service.requests] == [expected, expected]


@pytest.mark.parametrize("given", ["soon", True, [], {}, ""])
async def test_what_is_no_duration_is_refused_by_name(client: httpx.AsyncClient, given: Any) -> None:
    """With what would be right."""
    answer = await client.post("/v1/completions", json={"model": "tiny", "prompt": "hi", "keep_alive": given})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "keep_alive")
    assert error["message"].startswith("keep_alive must be seconds (300), a duration")


async def test_the_list_of_models_says_what_there_is_for_them(client: httpx.AsyncClient) -> None:
    """In bytes."""
    assert (await client.get("/v1/models")).json()["memory"] == {
        "budget": 2**30,
        "charged": 2**20,
        "archived": 0,
    }


async def test_a_model_is_judged_by_the_budget_of_the_daemon(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """Not as by the command alone, to which its workers are programs like any other."""
    answer = await client.post("/admin/models/fit", json={"model": "pilot"})
    assert answer.json()["machine"]["bytes_available"] == service.memory().budget
