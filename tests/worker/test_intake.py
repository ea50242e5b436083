"""What the worker's step loop is given to do, and when."""

import os
from collections.abc import Iterator

import pytest

from pilotlight.core import Prompt, RequestClass, Sampling
from pilotlight.worker.intake import Intake
from pilotlight.worker.protocol import Generate


class Loop:
    """A runtime that writes down what it is told, and its step loop, which works on while it prepares."""

    def __init__(self, intake: Intake) -> None:
        self.did: list[str] = []
        self._tasks = intake.tasks

    def work(self) -> None:
        while not self._tasks.empty():
            self._tasks.get()(self)  # type: ignore[arg-type]  # what the intake asks of it

    def prepare(self, generate: Generate) -> int:
        self.work()
        self.did.append(f"prepare {generate.id}")
        return generate.id

    def start(self, id: int) -> None:
        self.did.append(f"start {id}")

    def hold(self, is_held: bool) -> None:
        self.did.append("hold" if is_held else "go on")


@pytest.fixture
def intake() -> Iterator[Intake]:
    with open(os.devnull, "rb") as nothing:
        yield Intake(nothing)


@pytest.fixture
def loop(intake: Intake) -> Loop:
    loop = Loop(intake)
    intake.runtime = loop  # type: ignore[assignment]  # what the intake asks of it
    return loop


def generate(id: int, request_class: RequestClass = RequestClass.INTERACTIVE) -> Generate:
    return Generate(id, Prompt(text="hi"), Sampling(), 1, (), 1, False, True, request_class)


def test_what_yields_is_held_while_a_prompt_is_prepared(intake: Intake, loop: Loop) -> None:
    """And goes on, as far as it may, once that has begun."""
    intake.take(generate(1, RequestClass.BACKGROUND))
    loop.work()
    intake.take(generate(2))
    loop.work()
    assert loop.did == ["prepare 1", "start 1", "hold", "prepare 2", "start 2", "go on"]
