"""How urgent a request is, and who asks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fake_service import FakeService

from pilotlight.core import RequestClass
from pilotlight.settings import ClassesSettings, ClassSettings

PATH = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
SETTINGS = ClassesSettings(
    interactive=ClassSettings(agents=("Obsidian-Chat/*",)),
    background=ClassSettings(agents=("obsidian*", "*indexer?"), keys=("a-background-key",)),
    batch=ClassSettings(keys=("a-batch-key",)),
)
KEY = {"authorization": "Bearer a-background-key"}


async def asked(client: httpx.AsyncClient, headers: Mapping[str, str], **fields: Any) -> httpx.Response:
    return await client.post(PATH, json=BODY | fields, headers={"user-agent": "curl/8", **headers})


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({}, {}, "interactive"),
        ({"service_tier": None}, {}, "interactive"),
        ({"service_tier": "auto"}, {}, "interactive"),
        ({"service_tier": "priority"}, {}, "interactive"),
        ({"service_tier": "scale"}, {}, "interactive"),
        ({"service_tier": "flex"}, {}, "background"),
        ({}, {"x-request-class": "batch"}, "batch"),
        ({"service_tier": "flex"}, {"x-request-class": "interactive"}, "interactive"),
        ({}, {"user-agent": "Obsidian/1.5"}, "background"),
        ({}, {"user-agent": "my indexer2"}, "background"),
        ({}, {"user-agent": "my indexer"}, "interactive"),
        ({}, {"user-agent": "obsidian-chat/1"}, "interactive"),
        ({}, KEY, "background"),
        ({}, {"authorization": "bearer a-batch-key"}, "batch"),
        ({}, {"authorization": "Basic a-batch-key"}, "interactive"),
        ({"service_tier": "auto"}, KEY, "background"),
        ({"service_tier": "default"}, KEY, "interactive"),
        ({}, KEY | {"x-request-class": "batch"}, "batch"),
    ],
)
async def test_the_class_of_a_request(
    service: FakeService,
    client: httpx.AsyncClient,
    fields: dict[str, Any],
    headers: dict[str, str],
    expected: str,
) -> None:
    """What the client says holds, then what the settings say of the client; the answer tells."""
    service.config = replace(service.config, classes=SETTINGS)
    response = await asked(client, headers, **fields)
    assert service.requests[0].request_class is RequestClass(expected)
    assert response.headers["x-request-class"] == expected
    assert response.json()["service_tier"] == ("default" if expected == "interactive" else "flex")


async def test_every_chunk_says_its_tier(client: httpx.AsyncClient) -> None:
    """As OpenAI's do."""
    response = await asked(client, {}, service_tier="flex", stream=True)
    chunks = [line for line in response.text.split("\n\n") if line.startswith("data: {")]
    assert len(chunks) > 2
    assert all('"service_tier":"flex"' in chunk for chunk in chunks)


async def test_a_tier_nobody_knows_is_refused(client: httpx.AsyncClient) -> None:
    """With those there are."""
    error = (await asked(client, {}, service_tier="silver")).json()["error"]
    assert error["param"] == "service_tier"
    assert "'flex'" in error["message"]
    assert "'scale'" in error["message"]


@pytest.mark.parametrize("value", ["urgent", "", "Batch", "batch,background"])
async def test_a_header_that_names_no_class_is_refused(client: httpx.AsyncClient, value: str) -> None:
    """It names itself and the classes."""
    response = await asked(client, {"x-request-class": value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "X-Request-Class"
    assert "interactive, background or batch" in response.json()["error"]["message"]


async def test_headers_that_contradict_each_other_are_refused(client: httpx.AsyncClient) -> None:
    """Two readers would read different ones."""
    headers = httpx.Headers([("x-request-class", "batch"), ("x-request-class", "interactive")])
    assert (await client.post(PATH, json=BODY, headers=headers)).status_code == 400


async def test_clients_are_told_apart(service: FakeService, client: httpx.AsyncClient) -> None:
    """By key and by program; neither can be read from the name they get."""
    for headers in ({}, {}, KEY, {"user-agent": "other"}):
        await asked(client, headers)
    first, again, keyed, other = [request.client for request in service.requests]
    assert first == again
    assert len({first, keyed, other}) == 3
    assert not any("key" in name or "curl" in name for name in (first, keyed))
