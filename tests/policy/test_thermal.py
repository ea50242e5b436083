"""The controller by itself: what it does about a reading. What that leads to is in tests/simulate."""

from typing import Any

import pytest

from pilotlight.policy.thermal import (
    LEAST_DUTY,
    LESSON,
    LESSON_S,
    SETTLE_S,
    Thermal,
)
from pilotlight.power.reading import Confidence, Origin, Reading


class Time:
    """A controller that gets a reading each second."""

    def __init__(self) -> None:
        self.thermal = Thermal()
        self.now = 0.0

    def go(self, seconds: int = 1, *, is_answering: bool = False, **values: Any) -> float:
        """The duty after so many seconds with the same reading."""
        for _ in range(seconds):
            self.now += 1
            reading = Reading(at=self.now, **values)
            self.thermal.on_reading(reading, is_answering=is_answering)
        return self.thermal.duty


@pytest.fixture
def time() -> Time:
    return Time()


def test_where_nothing_is_known_nothing_is_restricted(time: Time) -> None:
    """No sensor, no rate, for a day."""
    assert time.go(100) == 1.0


def test_a_sensor_that_vanishes_restricts_nothing(time: Time) -> None:
    """Whatever it said last."""
    assert time.go(300, headroom=0.99) < 1.0
    assert time.go() == 1.0


def test_a_cool_machine_runs_all_the_time(time: Time) -> None:
    """However long."""
    assert time.go(600, headroom=0.2, forecast=0.3) == 1.0


def test_it_slows_down_for_what_will_be(time: Time) -> None:
    """Long before it is so."""
    assert time.go(5, headroom=0.5, forecast=0.95) < 0.6


def test_heat_never_stops_background_work_by_itself(time: Time) -> None:
    """It may come from elsewhere, and go on for days."""
    assert time.go(3600, headroom=0.99, forecast=1.0) == LEAST_DUTY


@pytest.mark.parametrize("headroom", [0.84, 0.86, 0.88, 0.9])
def test_however_slowly_heat_comes_duty_falls_to_the_least(time: Time, headroom: float) -> None:
    """It is not left a step above it."""
    time.go(60, headroom=0.5)
    assert time.go(3600, headroom=headroom) == LEAST_DUTY


def test_the_systems_throttling_stops_it_until_there_is_room(time: Time) -> None:
    """Not only until it no longer throttles."""
    assert time.go(headroom=1.0, is_throttled=True) == 0.0
    assert time.go(60, headroom=0.95, forecast=0.95, is_throttled=False) == 0.0
    assert time.go(60, headroom=0.3, forecast=0.3, is_throttled=False) > 0.0


def test_a_limit_on_a_cool_machine_is_not_heat(time: Time) -> None:
    """Somebody saves power: then rules of the policy speak, not this."""
    assert time.go(60, headroom=0.2, is_throttled=True) == 1.0


def test_after_throttling_it_stays_further_away_for_a_while(time: Time) -> None:
    """And forgets it by and by."""
    time.go(headroom=0.3)
    before = time.thermal.target
    time.go(headroom=1.0, is_throttled=True)
    time.go(headroom=0.3, is_throttled=False)
    assert time.thermal.target == pytest.approx(before - LESSON, abs=0.01)
    time.go(int(LESSON_S / 2), headroom=0.3, is_throttled=False)
    assert time.thermal.target == pytest.approx(before - LESSON / 2, abs=0.01)
    time.go(int(LESSON_S / 2), headroom=0.3, is_throttled=False)
    assert time.thermal.target == pytest.approx(before, abs=0.005)


def test_the_longer_it_throttled_the_longer_that_is_remembered(time: Time) -> None:
    """A minute of it is dear."""
    time.go(headroom=0.3)
    before = time.thermal.target
    time.go(60, headroom=1.0, is_throttled=True)
    time.go(int(LESSON_S), headroom=0.3, is_throttled=False)
    assert time.thermal.target < before - LESSON / 2


def test_where_the_system_throttles_early_is_learned_at_once(time: Time) -> None:
    """`power_allocator` lowers the clock several degrees below what it holds."""
    time.go(headroom=0.75, is_throttled=True)
    time.go(headroom=0.7, is_throttled=False)
    assert time.thermal.target < 0.75


def counted(confidence: Confidence) -> dict[str, Origin]:
    """What throttle counters say."""
    return {"is_throttled": Origin("throttle counters", 0.0, confidence)}


def test_a_spike_that_was_only_counted_is_a_small_lesson(time: Time) -> None:
    """It was over within milliseconds, wherever the temperature is: it is not taken for early, nor for as
    long as it might have lasted."""
    time.go(headroom=0.3)
    before = time.thermal.target
    time.go(headroom=0.6, is_throttled=True, origins=counted(Confidence.DERIVED))
    assert time.go(9, headroom=0.6, is_throttled=True, origins=counted(Confidence.GUESSED)) == 0.0
    time.go(headroom=0.3, is_throttled=False)
    assert time.thermal.target == pytest.approx(before - LESSON, abs=0.01)
    time.go(int(LESSON_S), headroom=0.3, is_throttled=False)
    assert time.thermal.target == pytest.approx(before, abs=0.005)


def test_what_is_only_guessed_teaches_nothing(time: Time) -> None:
    """The counter moved while it was cool, and then it gets warm; or turbo is off for other reasons."""
    time.go(headroom=0.4, is_throttled=True, origins=counted(Confidence.DERIVED))
    before = time.thermal.target
    assert time.go(9, headroom=0.55, is_throttled=True, origins=counted(Confidence.GUESSED)) == 1.0
    assert time.thermal.target == pytest.approx(before, abs=0.001)


def test_a_system_that_throttles_all_the_time_leaves_background_work_the_least(time: Time) -> None:
    """Lessons come to an end, so that it goes on once the machine has cooled."""
    for _ in range(100):
        time.go(headroom=1.0, is_throttled=True)
        time.go(headroom=1.0, is_throttled=False)
    assert time.go(600, headroom=0.0, is_throttled=False) == 1.0


def test_it_learns_what_answers_add(time: Time) -> None:
    """Small ones leave more room for background work than it thought at first."""
    time.go(10, headroom=0.5)
    first = time.thermal.target
    for _ in range(20):
        time.go(20, headroom=0.52, is_answering=True)
        time.go(60, headroom=0.5)
    assert time.thermal.target > first + 0.05


@pytest.mark.parametrize(("pause_s", "is_late"), [(8.0, False), (3600.0, False), (3600.0, True)])
def test_an_answer_ends_when_it_was_last_seen(time: Time, pause_s: float, is_late: bool) -> None:
    """Nobody looks while nothing runs: the next reading comes with the next request, or a little late, and
    the machine has cooled by then."""
    for rested in (0.5, 0.3) * 10:
        time.go(headroom=rested, is_answering=is_late)
        time.go(20, headroom=rested + 0.2, is_answering=True)
        time.now += pause_s
    assert time.thermal.reserve == pytest.approx(0.19, abs=0.02)


def test_an_answer_that_was_throttled_teaches_nothing(time: Time) -> None:
    """It took longer and heated less than it would have."""
    time.go(10, headroom=0.9)
    first = time.thermal.target
    time.go(5, headroom=1.0, is_throttled=True, is_answering=True)
    time.go(90, headroom=0.9, is_answering=True)
    time.go(headroom=0.9)
    assert time.thermal.target == pytest.approx(first - LESSON, abs=0.005)


def test_without_a_thermometer_slowdown_halves_it(time: Time) -> None:
    """Down to the least, and no further."""
    time.go(slowdown=0.0)
    assert time.go(int(SETTLE_S), slowdown=0.2) == 0.5
    assert time.go(int(SETTLE_S), slowdown=0.2) == 0.25
    assert time.go(3600, slowdown=0.2) == LEAST_DUTY


def test_without_a_thermometer_it_comes_back_slowly(time: Time) -> None:
    """From a half in five minutes."""
    time.go(slowdown=0.2)
    assert time.go(150, slowdown=0.05) == pytest.approx(0.75)
    assert time.go(300, slowdown=0.05) == 1.0


def test_a_pause_without_readings_is_not_counted(time: Time) -> None:
    """Nobody looked while nothing ran: the controller does not wind up meanwhile."""
    other = Time()
    for one, pause in ((time, 0.0), (other, 86_400.0)):
        one.go(30, headroom=0.8, forecast=0.8)
        one.now += pause
        one.go(1, headroom=0.8, forecast=0.8)
    assert other.thermal.duty == pytest.approx(time.thermal.duty, abs=0.1)
