"""/admin: for the person at the machine."""

import httpx
import pytest
from fake_service import FakeService

from pilotlight.reload import Reloaded


async def test_everything_about_a_model_is_under_admin(client: httpx.AsyncClient) -> None:
    """By any of its names: what the list has, and the path and settings it keeps to itself."""
    listed = (await client.get("/v1/models/tiny")).json()
    shown = (await client.get("/admin/models/org/tiny")).json()
    assert shown.items() >= listed.items()
    assert (shown["path"], shown["settings"]["sampling"]) == ("/models/tiny.gguf", {"temperature": 0.25})
    assert (await client.get("/admin/models/gpt-5")).status_code == 404


async def test_all_models_are_under_admin(client: httpx.AsyncClient) -> None:
    """Each in full."""
    listed = (await client.get("/admin/models")).json()
    assert [model["path"] for model in listed["models"]] == ["/models/tiny.gguf", "/models/large.gguf"]
    assert listed["not_used"] == []
    assert listed["memory"] == {"budget": 2**30, "charged": 2**20, "archived": 0}


async def test_a_reload_says_what_is_different(service: FakeService, client: httpx.AsyncClient) -> None:
    """And what is not, before a restart."""
    service.reloaded = Reloaded("/m.toml", ("new",), ("tiny",), ("old",), ("server.port",))
    response = await client.post("/admin/reload")
    assert response.status_code == 200
    assert response.json() == {
        "file": "/m.toml",
        "added": ["new"],
        "changed": ["tiny"],
        "removed": ["old"],
        "needs_restart": ["server.port"],
    }


async def test_a_reload_of_a_wrong_file_is_a_400(client: httpx.AsyncClient) -> None:
    """With file, key and the nearest name."""
    response = await client.post("/admin/reload")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "config_error")
    assert error["message"] == "models.toml: unknown key server.prot; did you mean 'port'?"


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}])
async def test_a_web_page_of_elsewhere_changes_nothing(
    service: FakeService, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """Not even by a request that needs no preflight."""
    service.reloaded = Reloaded("/m.toml", (), (), (), ())
    assert (await client.post("/admin/reload", headers=headers)).status_code == 403


async def test_a_reload_is_no_question(client: httpx.AsyncClient) -> None:
    """Nothing changes by following a link."""
    assert (await client.get("/admin/reload")).status_code == 405
