"""Requests on their way to the scheduler."""

from pathlib import Path

import anyio
from anyio import wait_all_tasks_blocked as settle
from fake_effects import request
from fake_worker import model
from msgspec.structs import replace

from pilotlight.core import Model, Request
from pilotlight.errors import Error
from pilotlight.scheduler.arrivals import Arrivals
from virtual_clock import run_virtual


class Desk:
    """Arrivals, whose looks end when told to; the first request that is asked for has its model loading."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failed: dict[str, str] = {}
        self.looked: list[str] = []
        self.may_end = anyio.Event()
        self.dead: set[Path] = set()
        """Whose disk never answers."""
        self.loading: set[str] = set()
        self.arrivals = Arrivals(self.loading.__contains__, self.look_at, self.ask, self.fail)

    async def look_at(self, model: Model) -> None:
        self.looked.append(model.name)
        if model.path in self.dead:
            await anyio.sleep_forever()
        await self.may_end.wait()

    def ask(self, model: Model, request: Request) -> None:
        self.asked.append(request.id)
        self.loading.add(model.name)

    def fail(self, request: Request, error: Error) -> None:
        self.failed[request.id] = error.message


async def test_of_a_crowd_one_has_the_file_looked_at() -> None:
    """The others are asked for after it, in their order; who comes later waits for nothing."""
    desk = Desk()
    async with anyio.create_task_group() as tasks:
        for number in ("1", "2", "3"):
            desk.arrivals.add(model("a"), request(number), tasks)
        await settle()
        assert (desk.looked, desk.asked) == (["a"], [])
        desk.may_end.set()
    assert (desk.looked, desk.asked) == (["a"], ["1", "2", "3"])
    async with anyio.create_task_group() as tasks:
        desk.arrivals.add(model("a"), request("4"), tasks)
        assert desk.asked[-1] == "4"
    assert desk.looked == ["a"]


async def test_models_do_not_wait_for_each_other() -> None:
    """One that loads has its requests at once while the file of another is looked at."""
    desk = Desk()
    desk.loading.add("b")
    async with anyio.create_task_group() as tasks:
        desk.arrivals.add(model("a"), request("1"), tasks)
        desk.arrivals.add(model("b"), request("2", model="b"), tasks)
        assert desk.asked == ["2"]
        desk.may_end.set()
    assert desk.asked == ["2", "1"]


def test_a_look_that_never_ends_fails_who_waits() -> None:
    """All at once, as on a drive that is gone; once it is back, others are asked for."""

    async def main() -> None:
        desk = Desk()
        async with anyio.create_task_group() as tasks:
            for number in ("1", "2"):
                desk.arrivals.add(model("a"), request(number), tasks)
        text = "a: its file could not be looked at within 90 s"
        assert (desk.failed, desk.asked) == ({"1": text, "2": text}, [])
        assert anyio.current_time() == 90
        desk.may_end.set()
        async with anyio.create_task_group() as tasks:
            desk.arrivals.add(model("a"), request("3"), tasks)
        assert (desk.looked, desk.asked) == (["a", "a"], ["3"])

    run_virtual(main)


def test_a_look_that_never_ends_fails_nobody_whose_model_is_elsewhere_by_now() -> None:
    """Its path was corrected before they came: they are asked for in their order, after another look."""

    async def main() -> None:
        desk = Desk()
        wrong = replace(model("a"), path=Path("/dead/a.gguf"))
        desk.dead.add(wrong.path)
        desk.may_end.set()
        async with anyio.create_task_group() as tasks:
            for number, as_it_was in (("1", wrong), ("2", model("a")), ("3", wrong), ("4", model("a"))):
                desk.arrivals.add(as_it_was, request(number), tasks)
        assert (list(desk.failed), desk.asked, desk.looked) == (["1", "3"], ["2", "4"], ["a", "a"])
        assert anyio.current_time() == 90

    run_virtual(main)


async def test_once_it_is_closed_nobody_waits_for_a_look() -> None:
    """Each is asked for once, in their order, also when the look ends after all."""
    desk = Desk()
    async with anyio.create_task_group() as tasks:
        for number in ("1", "2"):
            desk.arrivals.add(model("a"), request(number), tasks)
        await settle()
        desk.arrivals.close()
        desk.arrivals.add(model("a"), request("3"), tasks)
        desk.arrivals.add(model("b"), request("4", model="b"), tasks)
        assert desk.asked == ["1", "2", "3", "4"]
        desk.may_end.set()
    assert (desk.looked, desk.asked) == (["a"], ["1", "2", "3", "4"])


async def test_one_that_came_just_before_the_close_is_asked_for_once() -> None:
    """The task that was to look has not begun."""
    desk = Desk()
    async with anyio.create_task_group() as tasks:
        desk.arrivals.add(model("a"), request("1"), tasks)
        desk.arrivals.close()
    assert (desk.looked, desk.asked) == ([], ["1"])
