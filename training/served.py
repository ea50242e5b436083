"""A model behind a `pilotlight serve` of its own: the same questions to every runtime."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

LONGEST_ANSWER = 600  # Tokens.
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Answer:
    """What the model said; `tokens` counts them, the one that ended it included."""

    text: str
    tokens: int
    stopped: bool


class Served:
    """One served model."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client = client
        self._name = name

    def answer(self, prompt: str) -> Answer:
        """The greedy answer to a rendered prompt, computed alone and from its beginning."""
        body = {"model": self._name, "prompt": prompt, "max_tokens": LONGEST_ANSWER, "temperature": 0}
        response = self._client.post("completions", json=body | {"cache_prompt": False})
        if response.is_error:
            raise SystemExit(f"{self._name}: {response.text}")
        (choice,) = response.json()["choices"]
        tokens = response.json()["usage"]["completion_tokens"]
        return Answer(choice["text"], tokens, choice["finish_reason"] == "stop")


@contextmanager
def served(model: str, threads: int) -> Iterator[Served]:
    """Serve a built-in model by its name, or a GGUF file or a model folder by its path."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "pilotlight", "serve", "--port", "0", "--config", os.devnull]
        command += ["--state-dir", state, "--model", model, "--threads", str(threads)]
        command += ["--log-level", "warning"]
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert daemon.stdout is not None
            ready = daemon.stdout.readline()
            if not ready:
                raise SystemExit("the daemon did not start")
            with httpx.Client(base_url=f"{ready.split()[-1]}/v1/", timeout=PATIENCE_S) as client:
                yield Served(client, Path(model).name.removesuffix(".gguf"))
        finally:
            daemon.terminate()
            daemon.wait()
