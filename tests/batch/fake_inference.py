"""A model that obeys `batch.run.Inference`, and what batches are made of."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio import lowlevel

from pilotlight.errors import Error, ModelNotFound

CHAT = "/v1/chat/completions"


def line(custom_id: str, /, **fields: Any) -> str:
    """A request, as a line of a file."""
    body = {"model": "echo", "messages": [{"role": "user", "content": custom_id}]}
    request = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}
    return json.dumps(request | fields) + "\n"


def write_lines(path: Path, num_lines: int) -> Path:
    path.write_text("".join(line(f"r{number}") for number in range(num_lines)))
    return path


def answers(path: Path) -> list[dict[str, Any]]:
    """What is in a file of answers."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


@dataclass
class FakeInference:
    """Answers a question with itself; `fate` may raise what becomes of it instead."""

    fate: Callable[[str], Error | None] = lambda question: None
    places: int = 1
    asked: list[str] = field(default_factory=list)
    """The questions, in the order they came."""
    num_at_once: int = 0
    """The most that ever ran side by side."""
    hold: anyio.Event | None = None
    """No answer comes before that."""
    gate: anyio.Event | None = None
    """Batches may not run before that."""
    num_running: int = 0
    news: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, num_running: int) -> None:
        """So many run side by side."""
        while self.num_running < num_running:
            self.news = anyio.Event()
            await self.news.wait()

    async def until_asked(self, num_questions: int) -> None:
        while len(self.asked) < num_questions:
            self.news = anyio.Event()
            await self.news.wait()

    async def find(self, model: str) -> str:
        if model != "echo":
            raise ModelNotFound(f"no model is named {model!r}")
        return model

    def parallel(self, model: str) -> int:
        return self.places

    async def may_run(self) -> None:
        if self.gate is not None:
            await self.gate.wait()

    async def ask(self, endpoint: str, body: bytes, request_id: str) -> bytes:
        question = json.loads(body)["messages"][0]["content"]
        self.asked.append(question)
        self.num_running += 1
        self.news.set()
        self.num_at_once = max(self.num_at_once, self.num_running)
        try:
            await lowlevel.checkpoint()
            if self.hold is not None:
                await self.hold.wait()
            if (error := self.fate(question)) is not None:
                raise error
        finally:
            self.num_running -= 1
        usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
        return json.dumps({"text": question, "usage": usage}).encode()
