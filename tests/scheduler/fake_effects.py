"""Effects that record, and the requests to feed a scheduler with."""

from collections.abc import Iterator
from typing import Any

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.errors import Error
from pilotlight.scheduler.residency import Reason


def request(id: str, model: str = "a", n: int = 1, **fields: Any) -> Request:
    return Request(id, model, Prompt(text="hi"), Sampling(), n=n, **fields)


def background(id: str, model: str = "a", n: int = 1, client: str = "") -> Request:
    return request(id, model, n, request_class=RequestClass.BACKGROUND, client=client)


class Recorder:
    """`scheduler.Effects` that does nothing but write down what it was told, as one word per effect."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.errors: dict[str, Error] = {}

    def start(self, model: str) -> None:
        self.said.append(f"start {model}")

    def stop(self, model: str, reason: Reason) -> None:
        self.said.append(f"stop {model} {reason}")

    def dispatch(self, request: Request) -> None:
        self.said.append(f"dispatch {request.id}")

    def cancel(self, request: Request) -> None:
        self.said.append(f"cancel {request.id}")

    def fail(self, request: Request, error: Error) -> None:
        self.said.append(f"fail {request.id}")
        self.errors[request.id] = error

    def idle(self, model: str) -> None:
        self.said.append(f"idle {model}")

    def news(self) -> Iterator[str]:
        """What was said since the last time."""
        said, self.said = self.said, []
        return iter(said)
