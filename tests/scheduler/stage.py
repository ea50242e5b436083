"""A scheduler under a budget, by a clock the test moves, and what can happen to it."""

from collections.abc import Callable

from fake_effects import Recorder, background, request

from pilotlight.core import RequestClass
from pilotlight.registry.budget import Room
from pilotlight.registry.pressure import Level
from pilotlight.scheduler.residency import TURN_LOADS, Needs
from pilotlight.scheduler.scheduler import Scheduler

LOAD_S = 1.0
TURN_S = TURN_LOADS * LOAD_S

Event = Callable[["Stage"], None]


class Stage:
    """A scheduler with a budget of 10 bytes; `a` and `b` need 6 each, `c` 4, `d` 11. A load takes 1 s."""

    def __init__(self, budget: int = 10) -> None:
        self.effects = Recorder()
        self.scheduler = Scheduler(self.effects, max_queued=9)
        self.scheduler.on_budget(Room(budget, kept=budget, most=budget))
        self.now = 100.0
        self.scheduler.on_time(self.now)
        for model, num_bytes in {"a": 6, "b": 6, "c": 4, "d": 11}.items():
            self.needs(model, num_bytes)

    def needs(self, model: str, num_bytes: int, is_pinned: bool = False, keep_alive_s: float = 1000) -> None:
        self.scheduler.on_needs(model, Needs(num_bytes, is_pinned, keep_alive_s))

    def play(self, *events: Event) -> str:
        """What the last of the events led to."""
        for event in events:
            self.news()
            event(self)
            self.scheduler.check()
        return self.news()

    def news(self) -> str:
        return ", ".join(self.effects.news())

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.on_time(self.now)


def ask(id: str, model: str, keep_alive_s: float | None = None) -> Event:
    return lambda stage: stage.scheduler.on_request(request(id, model, keep_alive_s=keep_alive_s))


def behind(id: str, model: str) -> Event:
    return lambda stage: stage.scheduler.on_request(background(id, model))


def batch(id: str, model: str) -> Event:
    return lambda stage: stage.scheduler.on_request(request(id, model, request_class=RequestClass.BATCH))


def load(model: str) -> Event:
    return lambda stage: stage.scheduler.on_request(request(f"load {model}", model, n=0))


def ready(model: str, parallel: int = 2) -> Event:
    def event(stage: Stage) -> None:
        stage.wait(LOAD_S)
        stage.scheduler.on_worker_ready(model, parallel)

    return event


def done(id: str) -> Event:
    return lambda stage: stage.scheduler.on_request_done(id)


def leave(id: str) -> Event:
    return lambda stage: stage.scheduler.on_cancel(id)


def gone(model: str) -> Event:
    return lambda stage: stage.scheduler.on_worker_gone(model, None)


def wait(seconds: float) -> Event:
    return lambda stage: stage.wait(seconds)


def unload(model: str) -> Event:
    return lambda stage: stage.scheduler.on_unload(model)


def change(model: str) -> Event:
    return lambda stage: stage.scheduler.on_change(model)


def hold(*classes: RequestClass) -> Event:
    """The policy does, and no others."""
    return lambda stage: stage.scheduler.on_held(classes)


def press(level: Level) -> Event:
    return lambda stage: stage.scheduler.on_pressure(level)


def used(model: str, id: str = "") -> list[Event]:
    """It is loaded, was asked once, and is idle."""
    id = id or f"used {model}"
    return [ask(id, model), ready(model), done(id)]
