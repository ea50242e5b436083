"""Has a Pilotlight load and unload its model, over one connection with the admin key."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from servers import Server, admin_key

LOAD_LIMIT_S = 300.0


class Admin:
    """Owns the connection. What the server refuses, and a lost connection, raise `httpx.HTTPError`."""

    def __init__(self, server: Server, state_dir: Path) -> None:
        self._model = server.model
        url = f"{server.url}/admin/models/"
        self._client = httpx.AsyncClient(base_url=url, headers=admin_key(state_dir), timeout=LOAD_LIMIT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def load(self) -> dict[str, Any]:
        """What is said of the model once it is loaded."""
        return await self._post("load")

    async def unload(self) -> dict[str, Any]:
        """What is said of it once its memory is free."""
        return await self._post("unload")

    async def _post(self, what: str) -> dict[str, Any]:
        answer = await self._client.post(what, json={"model": self._model})
        said: dict[str, Any] = answer.raise_for_status().json()
        return said
