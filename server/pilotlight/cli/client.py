"""One HTTP conversation with a daemon, and finding the daemon to have it with.

Knows the routes it calls; knows nothing of terminals.
"""

import json
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import quote

import h11
import httpx
from msgspec import Struct

from pilotlight.cli.options import is_address_given, resolve
from pilotlight.config import Config
from pilotlight.errors import Error, NotFound
from pilotlight.registry import keys
from pilotlight.registry.discovery import Discovery
from pilotlight.store.events import Event, decode

GREETING_S = 10.0
"""So long one waits for the first word of a daemon, which has nothing to look up for it."""


class Silent(Error):
    """Somebody takes the call and says nothing."""


class Piece(Struct, frozen=True):
    """Of an answer's text; with the last one it may be cut, at a limit of tokens or of the context."""

    text: str
    is_cut: bool = False


class Said(dict[str, Any]):
    """An object in an answer of `url`. What it does not have is no bug here: somebody else answers."""

    def __init__(self, url: str, said: Mapping[str, Any]) -> None:
        super().__init__(said)
        self._url = url

    def __missing__(self, key: str) -> NoReturn:
        raise _stranger(self._url, f"it says nothing of {key!r}")


class Client:
    """Calls the daemon at `url` with the `key`, if there is one. Every failure is an `Error` with a sentence
    for a person."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url, self.key = url, key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # A proxy from the environment must not get what is said to this machine. A daemon speaks plain HTTP;
        # reading the certificates of all authorities takes 30 ms, so none is trusted.
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            trust_env=False,
            timeout=httpx.Timeout(5, read=120),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    def models(self) -> list[dict[str, Any]]:
        return self._list(self._get("/v1/models"), "data")

    def listing(self) -> dict[str, Any]:
        return self._get("/admin/models")

    def show(self, name: str) -> dict[str, Any]:
        return self._get(f"/admin/models/{quote(name)}")

    def memory(self) -> dict[str, int]:
        """The budget, and what of it is charged, in bytes."""
        memory: dict[str, int] = self._get("/v1/models")["memory"]
        return memory

    def policy(self) -> dict[str, Any]:
        """What is known of the machine."""
        return self._get("/admin/policy")

    def energy(self) -> dict[str, Any]:
        """What answers took since the daemon started."""
        return self._get("/admin/energy")

    def load(self, model: str, keep_alive: str | None) -> dict[str, Any]:
        """Returns once it is loaded, however long that takes, with what /v1/models says of it."""
        given = {} if keep_alive is None else {"keep_alive": keep_alive}
        return self._post("/admin/models/load", {"model": model} | given)

    def unload(self, model: str) -> dict[str, Any]:
        """Returns when its memory is free."""
        return self._post("/admin/models/unload", {"model": model})

    def greet(self) -> None:
        """Returns if it is a daemon. Raises `Error`, which is `Silent` if it is stopped or frozen."""
        with _mapped(self.url):
            self._body(self._http.get("/health", timeout=GREETING_S))

    def notices(self) -> list[dict[str, Any]]:
        """None, if it tells them only to those with a key."""
        return self._list({"notices": []} | self._get("/health"), "notices")

    def chat(self, body: Mapping[str, Any]) -> Generator[Piece]:
        """The pieces of a streamed answer; closing the iterator ends the request."""
        with _mapped(self.url):
            for line in self._lines("/v1/chat/completions", body):
                yield from _pieces(json.loads(line))

    def pull(self, model: str) -> Generator[Event]:
        """What the daemon says of a pull; closing the iterator cancels it, unless others want the same."""
        with _mapped(self.url):
            for line in self._lines("/admin/models/pull", {"model": model}):
                yield decode(line)

    def change(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for `rollback`, `rm` or `prune`; returns what was done."""
        with _mapped(self.url):
            return self._body(self._http.post(f"/admin/models/{what}", json=body))

    def upload(self, content: BinaryIO, name: str) -> dict[str, Any]:
        """Send a file for a batch, from its begin, as it is read; returns what is known of it."""
        with _mapped(self.url):
            form = {"purpose": "batch"}
            files = {"file": (name, content)}
            timeout = httpx.Timeout(5, read=None, write=None)
            try:
                return self._body(self._http.post("/v1/files", data=form, files=files, timeout=timeout))
            except h11.LocalProtocolError as error:
                # More or less than its size was, of which httpcore makes no error of its own.
                raise Error(f"{name} has changed while it was sent; submit it again") from error

    def create_batch(self, file_id: str, endpoint: str, window: str) -> dict[str, Any]:
        order = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        return self._post("/v1/batches", order)

    def batches(self) -> list[dict[str, Any]]:
        """All there are, newest first."""
        page = self._get("/v1/batches?limit=100")
        found: list[dict[str, Any]] = page["data"]
        while page["has_more"]:
            page = self._get(f"/v1/batches?limit=100&after={page['last_id']}")
            found += page["data"]
        return found

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self._get(f"/v1/batches/{quote(batch_id, safe='')}")

    def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        return self._post(f"/v1/batches/{quote(batch_id, safe='')}/cancel", {})

    def delete(self, kind: str, identifier: str) -> None:
        """One of the `batches` or `files`. Raises `NotFound` if it is gone already."""
        with _mapped(self.url):
            self._body(self._http.delete(f"/v1/{kind}/{quote(identifier, safe='')}"))

    def content(self, file_id: str) -> Iterator[bytes]:
        """What is in a file, in pieces."""
        with _mapped(self.url), self._http.stream("GET", f"/v1/files/{file_id}/content") as response:
            if response.is_error:
                response.read()
                raise _refusal(response)
            yield from response.iter_bytes()

    def _lines(self, path: str, body: Mapping[str, Any]) -> Iterator[str]:
        """The data of the events that answer."""
        with self._http.stream("POST", path, json=body) as response:
            if response.is_error:
                response.read()
                raise _refusal(response)
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield line.removeprefix("data: ")

    def _list(self, body: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """Of objects, and nothing else."""
        with _mapped(self.url):
            return [Said(self.url, one) for one in body[key]]

    def _get(self, path: str) -> dict[str, Any]:
        with _mapped(self.url):
            return self._body(self._http.get(path))

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with _mapped(self.url):
            return self._body(self._http.post(path, json=body, timeout=httpx.Timeout(5, read=None)))

    def _body(self, response: httpx.Response) -> dict[str, Any]:
        if response.is_error:
            raise _refusal(response)
        return Said(self.url, response.json(object_hook=partial(Said, self.url)))


def found(arguments: Mapping[str, Any]) -> Client:
    """The daemon that the `daemon_options` of a command lead to. Raises `Error` without one."""
    client = find(resolve(**arguments), is_address_given=is_address_given(arguments))
    if client is None:
        raise Error("no daemon is running; `pilotlight serve` starts one")
    return client


def find(config: Config, *, is_address_given: bool) -> Client | None:
    """The daemon that answers: at the given address, else where one of this state directory says it is.

    The configured address comes last, for a daemon that runs with another state directory. Raises `Silent`
    for one that lives and does not answer: it has what it would be wrong to start or change without it.
    """
    given = _configured_url(config)
    ours = [given] if is_address_given else [one.url for one in Discovery(config.state_dir).living()]
    for url in dict.fromkeys([*ours, given]):
        client = Client(url, key_for(url, config))
        try:
            client.greet()
        except Silent:
            if url in ours:
                raise
        except Error:
            continue
        else:
            return client
    return None


def key_for(url: str, config: Config) -> str | None:
    """The admin key, if it is a daemon of our state directory: nobody else may hear it. Else an API key."""
    for running in Discovery(config.state_dir).living():
        if running.url == url:
            return keys.read(Path(running.key_file))
    return next(iter(config.server.api_keys), None)


def _configured_url(config: Config) -> str:
    host = config.server.host.replace("localhost", "127.0.0.1")
    return f"http://[{host}]:{config.server.port}" if ":" in host else f"http://{host}:{config.server.port}"


@contextmanager
def _mapped(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.ReadTimeout as error:
        raise Silent(f"the daemon at {url} does not answer; it may be stopped or frozen") from error
    except httpx.HTTPError as error:
        raise Error(f"the daemon at {url} does not answer: {error or type(error).__name__}") from error
    except ValueError as error:
        raise Error(f"what answers at {url} is no Pilotlight: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _stranger(url, f"{type(error).__name__}: {error}") from error


def _stranger(url: str, why: str) -> Error:
    return Error(f"what answers at {url} is no Pilotlight of this version: {why}; if it is one, restart it")


def _refusal(response: httpx.Response) -> Error:
    kind = NotFound if response.status_code == NotFound.status else Error
    try:
        return kind(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return kind(f"{response.url} answered {response.status_code} {response.reason_phrase}")


def _pieces(event: Mapping[str, Any]) -> Iterator[Piece]:
    if "error" in event:
        raise Error(event["error"]["message"])
    for choice in event["choices"]:
        text, is_cut = choice["delta"].get("content") or "", choice.get("finish_reason") == "length"
        if text or is_cut:
            yield Piece(text, is_cut)
