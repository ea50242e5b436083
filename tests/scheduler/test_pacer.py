"""What the controller says is done to background work, once a second and in bursts."""

import math
from dataclasses import dataclass, field

import pytest

from pilotlight.policy.pacing import Pacing
from pilotlight.policy.thermal import LEAST_DUTY
from pilotlight.power.reading import Reading
from pilotlight.scheduler.pacer import Pacer


@dataclass
class Worker:
    """Makes ten tokens a second of background work, unless it is held or has something better to do."""

    is_answering: bool = False
    has_yielding: bool = True
    num_yielding_tokens: int = 0
    is_resting: bool = False
    rests: list[bool] = field(default_factory=list)

    def rest(self, is_resting: bool) -> None:
        self.is_resting = is_resting
        self.rests.append(is_resting)


class Bench:
    """A second passes with each reading."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.is_free = False
        self.num_rests = 0
        self.slept_s = 0.0
        self.pacer = Pacer(self.worker, lambda: self.is_free, self.count, lambda: self.slept_s)
        self.now = 1000.0

    def count(self) -> None:
        self.num_rests += 1

    @property
    def pacing(self) -> Pacing:
        return self.pacer.pacing(self.now)

    def go(self, seconds: int, **values: float | bool) -> float:
        """The part of the time that background work ran."""
        self.worker.rests.clear()
        for _ in range(seconds):
            self.now += 1
            if self.worker.has_yielding and not (self.worker.is_answering or self.worker.is_resting):
                self.worker.num_yielding_tokens += 10
            self.pacer.on_reading(Reading(at=self.now, **values), self.now)  # type: ignore[arg-type]
        return self.worker.rests.count(False) / seconds


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_on_a_cool_machine_nothing_ever_rests(bench: Bench) -> None:
    """Nor where nothing is known."""
    assert bench.go(100, headroom=0.2, forecast=0.2) == 1.0
    assert bench.go(100) == 1.0


def test_on_a_hot_one_it_runs_as_its_duty_says(bench: Bench) -> None:
    """In runs of two seconds, which are 16 tokens here."""
    bench.go(120, headroom=0.9, forecast=0.9)
    assert bench.pacer.duty == pytest.approx(0.05)
    assert bench.go(400, headroom=0.9, forecast=0.9) == pytest.approx(0.05, abs=0.02)


def test_while_the_system_throttles_it_is_held(bench: Bench) -> None:
    """All the time, and goes on when there is room."""
    assert bench.go(60, headroom=1.0, is_throttled=True) == 0.0
    assert bench.go(60, headroom=0.1, forecast=0.1) > 0.9


def test_a_person_who_overrides_it_is_heard(bench: Bench) -> None:
    """As is one who switched the policy off."""
    bench.go(60, headroom=1.0, is_throttled=True)
    bench.is_free = True
    assert bench.go(60, headroom=1.0, is_throttled=True) == 1.0
    assert bench.pacer.duty == 1.0


def test_what_is_not_known_any_more_holds_nothing(bench: Bench) -> None:
    """Sensors that hang are no reason to wait for them."""
    bench.go(60, headroom=1.0, is_throttled=True)
    assert bench.go(10) == 1.0


def test_what_answers_take_is_no_run(bench: Bench) -> None:
    """Work that was paused for an answer has nothing to rest from."""
    bench.go(200, headroom=0.9, forecast=0.9)
    bench.worker.is_answering = True
    bench.go(60, headroom=0.9, forecast=0.9)
    bench.worker.is_answering = False
    bench.worker.rests.clear()
    assert bench.go(1, headroom=0.9, forecast=0.9) == 1.0


def test_it_says_why_and_until_when_work_rests(bench: Bench) -> None:
    """With the room that the next answer has."""
    bench.go(120, headroom=0.9, forecast=0.9)
    for was_resting in (True, False):
        while bench.worker.is_resting is was_resting:
            bench.go(1, headroom=0.9, forecast=0.9)
    told = bench.pacing
    assert (told.duty, told.is_resting) == (LEAST_DUTY, True)
    assert "the forecast headroom, 0.90, is above" in told.reason
    assert told.target is not None and told.reserve is not None and told.target < 1 - told.reserve
    assert told.rest_left_s is not None
    bench.go(math.ceil(told.rest_left_s) - 1, headroom=0.9, forecast=0.9)
    assert bench.worker.is_resting
    bench.go(1, headroom=0.9, forecast=0.9)
    assert not bench.worker.is_resting


def test_it_says_when_the_system_throttles_and_when_nothing_is_known(bench: Bench) -> None:
    """Each in a sentence, and when somebody has switched it off."""
    assert bench.pacing.reason == "nothing is known of heat"
    bench.go(60, headroom=1.0, is_throttled=True)
    assert bench.pacing.reason.startswith("the system throttles: background work goes on once")
    assert (bench.pacing.duty, bench.pacing.rest_left_s) == (0.0, None)
    bench.is_free = True
    assert (bench.pacing.duty, "overridden" in bench.pacing.reason) == (1.0, True)


def test_without_a_thermometer_it_tells_of_the_slowdown(bench: Bench) -> None:
    """And that background work gives way to it."""
    bench.go(120, slowdown=0.25)
    assert bench.pacing.reason.startswith("no thermometer, and answers come 25 % slower than when cold: ")
    assert bench.pacing.target is None


def test_each_rest_is_counted_once(bench: Bench) -> None:
    """However long it is."""
    bench.go(60, headroom=1.0, is_throttled=True)
    assert bench.num_rests == 1


@pytest.mark.parametrize("is_old", [False, True])
def test_of_a_sleep_in_the_middle_of_an_answer_nothing_is_learned(bench: Bench, is_old: bool) -> None:
    """The machine has cooled in what looks like a second; the first look after it may have failed."""
    bench.worker.is_answering = True
    for rested in (0.5, 0.3) * 10:
        bench.go(1, headroom=rested)
        bench.go(20, headroom=rested + 0.2)
        bench.slept_s += 3600
        if is_old:
            bench.pacer.on_reading(Reading(at=bench.now, headroom=rested + 0.2), bench.now + 0.5)
    assert bench.pacing.reserve == pytest.approx(0.19, abs=0.02)
