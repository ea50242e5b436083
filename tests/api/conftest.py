"""The app over a fake service, with and without sockets in between."""

import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
from fake_service import ADMIN_KEY, FakeService
from starlette.types import ASGIApp

from pilotlight.api.app import create_app
from pilotlight.api.server import Server
from pilotlight.config import Config


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service() -> Iterator[FakeService]:
    """Every test also checks that no request was released twice or forgotten."""
    service = FakeService()
    yield service
    assert sorted(service.releases) == sorted(request.id for request in service.requests)


@pytest.fixture
async def client(service: FakeService, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without sockets in between, and with the admin key; the app is built at its first use, so
    settings may change."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await create_app(service)(scope, receive, send)

    transport = httpx.ASGITransport(app)
    url, headers = "http://127.0.0.1:8710", {"authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as client:
        yield client


@pytest.fixture
async def url(service: FakeService, anyio_backend: str) -> AsyncIterator[str]:
    """The app on a real socket, as it is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(create_app(service), service.config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            await server.is_up.wait()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.force_exit = True
            server.stop()


class _Server(Server):
    """Says when it is up."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        super().__init__(app, config)
        self.is_up = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()
