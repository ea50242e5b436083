"""What needs which key."""

from pathlib import Path

import httpx
import pytest
from fake_service import ADMIN_KEY, FakeService

from pilotlight.api.app import ROUTES
from pilotlight.api.document import Route
from pilotlight.api.keys import Keys
from pilotlight.errors import InvalidKey
from pilotlight.reload import Reloaded

API_KEY = "a-key-for-one-app"

ADMIN_ROUTES = [route for route in ROUTES if route.path.startswith("/admin/")]


@pytest.fixture
def keyed(service: FakeService) -> FakeService:
    """A service that wants keys for everything."""
    service.keys = Keys(ADMIN_KEY, Path("/state"), (API_KEY, "a-key-for-another"))
    return service


def headers(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"authorization": f"{scheme} {key}"}


async def ask(client: httpx.AsyncClient, route: Route, key: dict[str, str]) -> httpx.Response:
    """A request with an empty body, which no route with a body takes."""
    client.headers.pop("authorization", None)
    path = route.path.replace("{id:path}", "tiny")
    return await client.request(route.methods[0], path, content=b"{}", headers=key)


@pytest.mark.parametrize("route", ADMIN_ROUTES, ids=lambda route: route.path)
@pytest.mark.parametrize("key", ["", "guessed-by-somebody", ADMIN_KEY[:-1], ADMIN_KEY + "x", "\xe4" * 20])
async def test_admin_needs_the_key(client: httpx.AsyncClient, route: Route, key: str) -> None:
    """All of it, also what only tells: there are paths of the user in it."""
    answer = await ask(client, route, {"authorization": f"Bearer {key}".encode("latin-1")} if key else {})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
    assert "/admin needs the key in /state/admin.key: " in error["message"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not key or key not in answer.text


async def test_an_error_says_how_the_key_is_sent(client: httpx.AsyncClient) -> None:
    """To who sent none."""
    answer = await ask(client, ADMIN_ROUTES[0], {})
    assert answer.json()["error"]["message"].endswith("send it as the header `Authorization: Bearer KEY`")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_key_opens_admin(service: FakeService, client: httpx.AsyncClient, scheme: str) -> None:
    """However a client writes it."""
    service.reloaded = Reloaded("/m.toml", (), (), (), ())
    answer = await client.post("/admin/reload", headers=headers(ADMIN_KEY, scheme))
    assert answer.status_code == 200


@pytest.mark.parametrize("scheme", ["Basic", "", "Token"])
async def test_another_scheme_is_no_key(client: httpx.AsyncClient, scheme: str) -> None:
    """A browser could send some of these by itself."""
    assert (await client.get("/admin/models", headers=headers(ADMIN_KEY, scheme))).status_code == 401


async def test_two_keys_are_refused(client: httpx.AsyncClient) -> None:
    """Two readers could take different ones."""
    both = [("authorization", f"Bearer {key}") for key in (ADMIN_KEY, API_KEY)]
    client.headers.pop("authorization")
    assert (await client.get("/admin/models", headers=both)).status_code == 403


async def test_a_local_page_needs_the_key_too(client: httpx.AsyncClient) -> None:
    """Its preflight is answered, and it may read why it was refused."""
    page = {"origin": "http://localhost:3000"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    client.headers.pop("authorization")
    assert (await client.options("/admin/reload", headers=page | asked)).status_code == 204
    answer = await client.post("/admin/reload", headers=page)
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == page["origin"]


async def test_a_refusal_is_counted(service: FakeService, client: httpx.AsyncClient) -> None:
    """Under its route."""
    await client.get("/admin/models/tiny", headers=headers("guessed-by-somebody"))
    counted = 'endpoint="/admin/models/{id:path}",model="unknown",status="401"'
    assert counted in service.metrics.text().decode()


async def test_without_keys_in_the_settings_any_will_do(client: httpx.AsyncClient) -> None:
    """OpenAI's clients always send one."""
    for key in ({}, headers("none")):
        client.headers.pop("authorization", None)
        assert (await client.get("/v1/models", headers=key)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/metrics"])
async def test_with_keys_in_the_settings_everything_needs_one(
    keyed: FakeService, client: httpx.AsyncClient, path: str
) -> None:
    """One of them, or the admin key; the message has none of them."""
    for key in (API_KEY, "a-key-for-another", ADMIN_KEY):
        assert (await client.get(path, headers=headers(key))).status_code == 200
    for wrong in ("none", API_KEY[:-1]):
        answer = await client.get(path, headers=headers(wrong))
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "one of its server.api_keys" in answer.text
        assert API_KEY not in answer.text


async def test_a_refused_question_reaches_no_model(keyed: FakeService, client: httpx.AsyncClient) -> None:
    """Nor is its body looked at."""
    answer = await client.post("/v1/completions", content=b"{", headers=headers("none"))
    assert answer.status_code == 401
    assert keyed.requests == []


async def test_an_api_key_does_not_open_admin(keyed: FakeService, client: httpx.AsyncClient) -> None:
    """An app may ask, and not delete models."""
    answer = await client.get("/admin/models", headers=headers(API_KEY))
    assert answer.status_code == 401
    assert "/admin needs the key in" in answer.text


async def test_supervisors_need_no_key(keyed: FakeService, client: httpx.AsyncClient) -> None:
    """They hear that we are alive, and nothing of the models."""
    client.headers.pop("authorization")
    assert (await client.get("/ready")).status_code == 200
    assert (await client.get("/health")).json() == {"status": "ok"}
    assert "notices" in (await client.get("/health", headers=headers(API_KEY))).json()


def test_the_place_of_the_key_hides_the_name_of_the_user() -> None:
    """It is told to whoever asks."""
    keys = Keys(ADMIN_KEY, Path.home() / ".local" / "state" / "pilotlight")
    with pytest.raises(InvalidKey, match=r"needs the key in ~/\.local/state/pilotlight/admin\.key: "):
        keys.check("/admin/models", [])
