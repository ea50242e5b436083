"""Talks to a worker process as the daemon does."""

from collections.abc import Callable
from typing import Any

import anyio

from pilotlight.core import Prompt, RequestClass, Sampling
from pilotlight.worker.handle import Said, Worker
from pilotlight.worker.protocol import Done, Event, Generate, Measured, Paused, Saved, State, Step, Threads

LOAD_S = 20.0

Spawn = Callable[..., Any]
"""Starts a child, of whatever is said."""


async def load(worker: Worker, mode: str = "full") -> Worker:
    await worker.load(mode, lambda _: None, LOAD_S)
    return worker


def ask(
    id: int = 1,
    text: str = "one two",
    max_tokens: int | None = None,
    request_class: RequestClass = RequestClass.INTERACTIVE,
) -> Generate:
    return Generate(id, Prompt(text=text), Sampling(), max_tokens, (), 1, False, True, request_class)


class Heard:
    """What a running worker says."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.states: list[State] = []
        self.saved: list[Saved] = []
        self.pauses: list[int] = []
        self.threads: list[Threads] = []
        self.measured: list[int] = []
        self._news = anyio.Event()

    def __call__(self, message: Said) -> None:
        if isinstance(message, Step):
            self.events += message.events
        elif isinstance(message, Saved):
            self.saved.append(message)
        elif isinstance(message, Paused):
            self.pauses.append(message.num_sequences)
        elif isinstance(message, Threads):
            self.threads.append(message)
        elif isinstance(message, Measured):
            self.measured.append(message.threads)
        else:
            self.states.append(message)
        self._news.set()
        self._news = anyio.Event()

    async def until(self, is_enough: Callable[[], bool]) -> None:
        while not is_enough():
            await self._news.wait()


async def talk(worker: Worker, heard: Heard, is_enough: Callable[[], bool]) -> None:
    """Listen until it is enough."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run, heard)
        await heard.until(is_enough)
        tasks.cancel_scope.cancel()


def ends(heard: Heard) -> list[int]:
    return [event.id for event in heard.events if isinstance(event, Done)]
