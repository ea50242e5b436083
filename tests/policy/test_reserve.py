"""What an answer heats is learned from the answers there were."""

from collections.abc import Callable

import pytest

from pilotlight.policy.reserve import PRIOR, USUAL_S, Reserve

Rise = Callable[[float, float], float]


def answers(reserve: Reserve, rise: Rise, rested: float, seconds: int, count: int = 10) -> None:
    for _ in range(count):
        for second in range(seconds + 1):
            reserve.learn(rested, float(second), rise(rested, second))
        reserve.ended(float(seconds))


def test_before_any_answer_it_is_a_careful_guess() -> None:
    """A third of the scale for a machine that rested."""
    constant, resting, per_s = PRIOR
    assert Reserve().expected(1.0) == pytest.approx(constant + resting + per_s * USUAL_S)


def test_it_learns_how_much_an_answer_adds() -> None:
    """To half a degree."""
    reserve = Reserve()
    answers(reserve, lambda rested, second: 0.05 + 0.3 * rested + 0.004 * second, rested=0.6, seconds=25)
    assert reserve.expected(0.6) == pytest.approx(0.05 + 0.18 + 0.1, abs=0.015)


def test_what_was_never_seen_stays_a_careful_guess() -> None:
    """Answers that came while background work ran all the time say nothing of those after a rest."""
    reserve = Reserve()
    answers(reserve, lambda rested, second: 0.002 * second, rested=0.0, seconds=25, count=50)
    assert reserve.expected(0.0) == pytest.approx(0.05, abs=0.015)
    assert reserve.expected(1.0) > reserve.expected(0.0) + 0.15


def test_a_machine_that_has_changed_is_learned_anew() -> None:
    """Its fan stopped, say."""
    reserve = Reserve()
    answers(reserve, lambda rested, second: 0.05, rested=0.5, seconds=25, count=40)
    answers(reserve, lambda rested, second: 0.25, rested=0.5, seconds=25, count=40)
    assert reserve.expected(0.5) == pytest.approx(0.25, abs=0.05)


def test_the_longest_of_the_last_answers_counts() -> None:
    """It may well come again; one of long ago need not."""
    reserve = Reserve()
    answers(reserve, lambda rested, second: 0.01 * second, rested=0.5, seconds=10)
    short = reserve.expected(0.5)
    answers(reserve, lambda rested, second: 0.01 * second, rested=0.5, seconds=40, count=1)
    assert reserve.expected(0.5) == pytest.approx(0.4, abs=0.05)
    answers(reserve, lambda rested, second: 0.01 * second, rested=0.5, seconds=10)
    assert reserve.expected(0.5) == pytest.approx(short, abs=0.02)


def test_it_never_leaves_the_scale() -> None:
    """An answer that cools the machine reserves nothing, one that melts it no more than all there is."""
    reserve = Reserve()
    answers(reserve, lambda rested, second: -0.5, rested=0.5, seconds=10, count=30)
    assert reserve.expected(0.5) == 0.0
    answers(reserve, lambda rested, second: 5.0, rested=0.5, seconds=10, count=60)
    assert reserve.expected(0.5) == 1.0
