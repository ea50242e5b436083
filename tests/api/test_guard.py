"""Which Hosts and Origins may reach the daemon, and the CORS answers."""

from contextlib import nullcontext

import httpx
import pytest

from pilotlight.api.guard import Guard
from pilotlight.errors import NotAllowed
from pilotlight.settings import ServerSettings

HOST = (b"host", b"127.0.0.1:8710")


def admit(*headers: tuple[bytes, bytes], **settings: tuple[str, ...]) -> dict[bytes, bytes]:
    return dict(Guard(ServerSettings(**settings)).admit(list(headers)))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8710",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:8710",
        "127.8.9.1",
        "[::1]",
        "[::1]:80",
        "pilotlight.localhost:8710",
        "a.b.localhost.",
    ],
)
def test_loopback_hosts_are_ours(host: str) -> None:
    """Whatever name of the loopback a client uses."""
    admit((b"host", host.encode()))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8710",
        "localhost.evil.example",
        "notlocalhost",
        "x.localhost.evil.example",
        "127.0.0.1.nip.io",
        "192.168.1.5",
        "0.0.0.0",
        "",
        "a@localhost",
        "localhost/x",
        "[::1",
        "::1:80",
        "[2001:db8::1]",
        "127.0.0.1:x",
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    """A name rebound to 127.0.0.1 still shows in the Host header."""
    with pytest.raises(NotAllowed):
        admit((b"host", host.encode()))


def test_a_missing_or_second_host_is_refused() -> None:
    """Two readers could take different ones."""
    with pytest.raises(NotAllowed):
        admit()
    with pytest.raises(NotAllowed):
        admit(HOST, (b"host", b"localhost"))


def test_configured_hosts_are_ours() -> None:
    """`allowed_hosts` adds names."""
    admit((b"host", b"box.lan:8710"), allowed_hosts=("box.lan",))


@pytest.mark.parametrize(
    ("host", "is_ours"), [("192.168.1.5:8710", True), ("[2001:db8::1]", True), ("box", False)]
)
def test_a_server_that_others_may_reach_is_reached_by_its_addresses(host: str, is_ours: bool) -> None:
    """Whichever it has; a name could be rebound, so it must be configured."""
    guard = Guard(ServerSettings(host="0.0.0.0", api_keys=("0123456789abcdef",)))
    with nullcontext() if is_ours else pytest.raises(NotAllowed):
        guard.admit([(b"host", host.encode())])


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:5173",
        "https://127.0.0.1:3000",
        "http://[::1]:80",
        "tauri://localhost",
        "http://tauri.localhost",
        "https://tauri.localhost",
        "http://wails.localhost",
        "http://app.localhost:5173",
        "app://obsidian.md",
        "vscode-webview://abc",
        "file://",
    ],
)
def test_local_pages_and_apps_are_allowed(origin: str) -> None:
    """And told so, by name, without credentials."""
    headers = admit(HOST, (b"origin", origin.encode()))
    assert headers[b"access-control-allow-origin"] == origin.encode()
    assert b"access-control-allow-credentials" not in headers
    assert headers[b"vary"] == b"Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://localhost.evil.example",
        "http://evillocalhost",
        "http://localhost@evil.example",
        "null",
        "",
        "http://",
        "http://[",
        "chrome-extension://abc",
        "http://127.0.0.1.nip.io",
        "http://192.168.1.5",
        "javascript://localhost",
    ],
)
def test_other_pages_are_refused(origin: str) -> None:
    """`null` too: a hostile sandboxed iframe sends it."""
    with pytest.raises(NotAllowed):
        admit(HOST, (b"origin", origin.encode()))


def test_configured_origins_are_allowed() -> None:
    """`allowed_origins` adds any, `null` included."""
    admit(HOST, (b"origin", b"null"), allowed_origins=("null",))
    admit(HOST, (b"origin", b"https://chat.example"), allowed_origins=("https://chat.example/",))


def test_a_page_of_the_daemon_itself_is_allowed() -> None:
    """Same origin as the Host that was just checked."""
    admit((b"host", b"box.lan:8710"), (b"origin", b"http://box.lan:8710"), allowed_hosts=("box.lan",))


def fetched(site: str, mode: str, dest: str) -> list[tuple[bytes, bytes]]:
    """What a browser says of a request that has no Origin."""
    fields = {b"sec-fetch-site": site, b"sec-fetch-mode": mode, b"sec-fetch-dest": dest}
    return [(name, value.encode()) for name, value in fields.items()]


@pytest.mark.parametrize(
    ("mode", "dest"),
    [("no-cors", "empty"), ("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe")],
)
def test_a_foreign_page_loads_nothing_without_saying_who_it_is(mode: str, dest: str) -> None:
    """A page of this machine may, from another port."""
    with pytest.raises(NotAllowed):
        admit(HOST, *fetched("cross-site", mode, dest))
    for site in ("same-site", "same-origin", "none"):
        admit(HOST, *fetched(site, mode, dest))


@pytest.mark.parametrize(("mode", "dest"), [("navigate", "document"), ("cors", "empty")])
def test_a_link_may_be_followed(mode: str, dest: str) -> None:
    """And an app in which a browser checks no Origin, and sends none, may ask."""
    admit(HOST, *fetched("cross-site", mode, dest))


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/v1/models", "/nope", "/openapi.json"])
async def test_every_path_is_guarded(client: httpx.AsyncClient, path: str) -> None:
    """Also those that tell little."""
    response = await client.get(path, headers={"origin": "http://evil.example"})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers


async def test_a_preflight_is_answered(client: httpx.AsyncClient) -> None:
    """With what was asked for, private network access included."""
    headers = {
        "origin": "http://localhost:5173",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
        "access-control-request-private-network": "true",
    }
    response = await client.options("/v1/chat/completions", headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-headers"] == headers["access-control-request-headers"]
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-private-network"] == "true"


async def test_a_hostile_preflight_is_refused(client: httpx.AsyncClient) -> None:
    """So the browser never sends the request itself."""
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    assert (await client.options("/v1/chat/completions", headers=headers)).status_code == 403


def test_a_page_may_read_what_clients_act_on() -> None:
    """OpenAI's for browsers looks for whether to try again, and when."""
    headers = admit(HOST, (b"origin", b"http://localhost:1"))
    exposed = headers[b"access-control-expose-headers"].decode().split(", ")
    assert {"retry-after", "x-should-retry", "x-request-id"} <= set(exposed)


async def test_an_error_carries_cors_headers(client: httpx.AsyncClient) -> None:
    """Or the page could not read what went wrong."""
    response = await client.get("/nope", headers={"origin": "http://localhost:1"})
    assert response.status_code == 404
    assert response.headers["access-control-allow-origin"] == "http://localhost:1"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_page_must_send_json_as_json(client: httpx.AsyncClient, kind: str) -> None:
    """Other types need no preflight, so any page could send them."""
    headers = {"origin": "http://localhost:1", "content-type": kind}
    response = await client.post("/v1/completions", content=b'{"model":"tiny","prompt":"x"}', headers=headers)
    assert response.status_code == 400


async def test_curl_may_leave_the_content_type_out(client: httpx.AsyncClient) -> None:
    """`curl -d` says it sends a form."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = await client.post("/v1/completions", content=b'{"model":"tiny","prompt":"x"}', headers=headers)
    assert response.status_code == 200
