"""GET /v1/models, /health, /ready, /openapi.json."""

import httpx
from fake_service import FakeService

from pilotlight.api.app import create_app
from pilotlight.core import Severity


async def test_models_are_listed_in_order(client: httpx.AsyncClient) -> None:
    """OpenAI's fields, plus what each is doing."""
    answer = (await client.get("/v1/models")).json()
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == ["tiny", "org/large"]
    tiny = answer["data"][0]
    assert (tiny["object"], tiny["owned_by"], tiny["created"]) == ("model", "pilotlight", 1_700_000_000)
    assert (tiny["state"], tiny["runtime"], tiny["error"]) == ("stopped", "llamacpp", None)
    assert tiny["aliases"] == ["small", "org/tiny"]
    assert "seed" in tiny["capabilities"]["sampling"]


async def test_a_model_s_name_may_hold_slashes(client: httpx.AsyncClient) -> None:
    """As it is or percent-encoded."""
    for path in ("/v1/models/org/large", "/v1/models/org%2Flarge"):
        answer = (await client.get(path)).json()
        assert (answer["id"], answer["context"]) == ("org/large", 4096)


async def test_an_alias_leads_to_the_model(client: httpx.AsyncClient) -> None:
    """By its own name; the list has it once."""
    assert (await client.get("/v1/models/org/tiny")).json()["id"] == "tiny"


async def test_an_unknown_model_is_a_404(client: httpx.AsyncClient) -> None:
    """As in a request."""
    response = await client.get("/v1/models/gpt-5")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_health_lists_the_notices(service: FakeService, client: httpx.AsyncClient) -> None:
    """And stays 200: it says that somebody is there."""
    service.notices.raise_("model-failed", Severity.ERROR, "it is broken")
    service.is_ready = False
    response = await client.get("/health")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    (notice,) = response.json()["notices"]
    assert (notice["code"], notice["severity"], notice["text"]) == ("model-failed", "error", "it is broken")


async def test_ready_says_whether_it_serves(service: FakeService, client: httpx.AsyncClient) -> None:
    """For supervisors and scripts."""
    assert (await client.get("/ready")).status_code == 200
    service.is_ready = False
    assert (await client.get("/ready")).status_code == 503
    assert (await client.head("/ready")).status_code == 503


async def test_the_bodies_are_described(client: httpx.AsyncClient) -> None:
    """For tools that generate clients; every reference leads somewhere."""
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert {"ChatBody", "CompletionBody", "Message", "BatchBody"} <= set(schemas)
    assert set(document["paths"]["/v1/files/{id}"]) == {"get", "delete"}
    assert set(document["paths"]["/v1/batches"]) == {"get", "post"}
    assert "temperature" in schemas["ChatBody"]["properties"]
    assert set(document["paths"]) >= {"/v1/chat/completions", "/v1/models/{id}", "/metrics"}


def test_the_bodies_are_described_once(service: FakeService) -> None:
    """Nothing else would be answered meanwhile, and anybody may ask."""
    app = create_app(service)
    assert app.openapi() is app.openapi()


async def test_there_are_no_pages_from_elsewhere(client: httpx.AsyncClient) -> None:
    """FastAPI's documentation pages load scripts from a CDN."""
    assert (await client.get("/docs")).status_code == 404
    assert (await client.get("/redoc")).status_code == 404
