"""Bursts: at least 16 tokens, and as much rest as the duty leaves."""

import pytest

from pilotlight.policy.pace import FEWEST_TOKENS, LONGEST_RUN_S, Bursts

TICK_S = 0.25


def history(duty: float, tokens_per_s: float, seconds: float) -> list[bool]:
    """For each tick, whether it rested."""
    bursts = Bursts()
    ticks = []
    for tick in range(int(seconds / TICK_S)):
        rests = bursts.rests(tick * TICK_S, duty)
        if not rests:
            bursts.ran(tokens_per_s * TICK_S, TICK_S)
        ticks.append(rests)
    return ticks


def runs(ticks: list[bool]) -> list[int]:
    """Lengths in ticks of the runs that were ended by a rest."""
    words = "".join("r" if rests else "w" for rests in ticks).split("r")
    return [len(word) for word in words[:-1] if word]


@pytest.mark.parametrize("tokens_per_s", [2, 10, 500])
@pytest.mark.parametrize("duty", [0.1, 0.5, 0.9])
def test_run_and_rest_make_the_duty(duty: float, tokens_per_s: float) -> None:
    """Whatever the speed, within what a tick leaves."""
    ticks = history(duty, tokens_per_s, 600)
    assert ticks.count(False) / len(ticks) == pytest.approx(duty, rel=0.12)


@pytest.mark.parametrize("tokens_per_s", [2, 10, 500])
def test_a_rest_never_comes_between_single_tokens(tokens_per_s: float) -> None:
    """But after 16 of them, and never after a moment."""
    lengths = runs(history(0.3, tokens_per_s, 600))
    assert min(lengths) * TICK_S >= 0.5
    assert min(lengths) * TICK_S * tokens_per_s >= FEWEST_TOKENS


def test_a_run_that_makes_no_tokens_ends_too() -> None:
    """A long prompt is computed."""
    lengths = runs(history(0.5, 0.0, 120))
    assert lengths[0] * TICK_S == LONGEST_RUN_S


def test_full_duty_never_rests() -> None:
    """And an hour of it has not to be made up for once duty is lower."""
    bursts = Bursts()
    for second in range(3600):
        assert not bursts.rests(second, 1.0)
        bursts.ran(10, 1)
    assert bursts.rests(3600, 0.5)
    assert not bursts.rests(3602, 0.5)


def test_a_rest_ends_sooner_when_duty_grows() -> None:
    """And later when it shrinks: 2 s of work are 2 s of rest at a half, 18 at a tenth."""
    bursts = Bursts()
    bursts.ran(20, 2)
    assert bursts.rests(0, 0.5)
    assert bursts.rests(10, 0.1)
    assert not bursts.rests(11, 0.5)


def test_what_is_stopped_goes_on_as_soon_as_it_may() -> None:
    """There is no rest to sit out."""
    bursts = Bursts()
    assert bursts.rests(0, 0.0)
    assert bursts.rests(100, 0.0)
    assert not bursts.rests(101, 0.1)
