"""What the commands make of answers that are not those of a daemon like them."""

import os
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import FakeDaemon

from pilotlight.cli import client
from pilotlight.cli.client import Client, Piece
from pilotlight.errors import Error
from pilotlight.registry.discovery import Discovery
from resolving import resolve

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("command", "models", "missing"),
    [
        ("ps", [{"id": "some.gguf", "object": "model"}], "state"),
        ("ls", [{"id": "pilot", "runtime": "llamacpp"}], "bytes_disk"),
        ("load", [{"id": "some.gguf"}], "bytes_resident"),
        ("rm", [{"id": "some.gguf"}], "model"),
    ],
)
def test_what_an_answer_lacks_is_told_in_one_line(
    run: Run, daemon: FakeDaemon, command: str, models: list[dict[str, Any]], missing: str
) -> None:
    """Another version of the daemon answers, or llama-server."""
    daemon.models = models
    names = ["pilot"] if command in ("load", "rm") else []
    result = run(command, *names, "--port", daemon.port)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"pilotlight: what answers at {daemon.url} is no Pilotlight of this version: "
        f"it says nothing of {missing!r}; if it is one, restart it\n"
    )


@pytest.mark.parametrize("models", [None, 5, ["some.gguf"], [None]])
def test_a_list_of_something_else_is_told_too(daemon: FakeDaemon, models: Any) -> None:
    """Whatever it is."""
    daemon.bodies["/v1/models"] = {"data": models}
    with pytest.raises(Error, match="is no Pilotlight"):
        Client(daemon.url).models()


@pytest.mark.parametrize(
    "event", ["{}", "[]", '{"error": "full"}', '{"choices": [{"delta": null}]}', '{"choices": [{}]}']
)
def test_so_are_pieces_of_an_answer(event: str) -> None:
    """After those that can be understood."""
    good = '{"choices": [{"delta": {"content": "Hello"}}]}'
    body = f"data: {good}\n\ndata: {event}\n\n"

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(f"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        answered = pool.submit(answer)
        pieces = Client(f"http://127.0.0.1:{listener.getsockname()[1]}").chat({"model": "pilot"})
        assert next(pieces) == Piece("Hello")
        with pytest.raises(Error, match="is no Pilotlight of this version"):
            next(pieces)
        answered.result()


@pytest.mark.parametrize("size", [2**25, 2**26 + 1])
def test_a_file_that_changes_while_it_is_sent_is_told(tmp_path: Path, size: int) -> None:
    """It has become shorter, or longer: another program still writes it."""
    file = tmp_path / "in.jsonl"
    file.touch()
    os.truncate(file, 2**26)

    def change() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)  # more than what is on its way is not read from the file yet
            os.truncate(file, size)
            while connection.recv(2**20):
                continue

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        changed = pool.submit(change)
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        told = pytest.raises(Error, match=r"in\.jsonl has changed while it was sent")
        with file.open("rb") as content, told:
            client.upload(content, file.name)
        changed.result()


def test_a_daemon_that_is_frozen_is_not_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started or changed beside it. Of a stranger at the usual address nobody knows what it is."""
    monkeypatch.setattr(client, "GREETING_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        port = frozen.getsockname()[1]
        config = resolve(tmp_path, state_dir=str(tmp_path), port=port)
        assert client.find(config, is_address_given=False) is None
        with pytest.raises(client.Silent, match="it may be stopped or frozen"):
            client.find(config, is_address_given=True)
        Discovery(tmp_path).write(f"http://127.0.0.1:{port}")
        with pytest.raises(client.Silent, match="it may be stopped or frozen"):
            client.find(config, is_address_given=False)
