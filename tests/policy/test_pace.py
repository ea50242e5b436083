"""Bursts: at least 16 tokens, and as much rest as the duty leaves."""

import pytest

from pilotlight.policy import pace


@pytest.mark.parametrize(("tokens", "seconds"), [(15, 9.0), (1, 0.6), (100, 0.4)])
def test_a_rest_never_comes_after_a_few_tokens(tokens: int, seconds: float) -> None:
    """Nor after a moment, however fast the model."""
    assert not pace.is_run(tokens, seconds)


@pytest.mark.parametrize("duty", [0.1, 0.5, 0.95, 1.0])
def test_run_and_rest_make_the_duty(duty: float) -> None:
    """Whatever a run took."""
    ran = 1.6
    assert pace.is_run(pace.FEWEST_TOKENS, ran)
    assert ran / (ran + pace.rest_s(ran, duty)) == pytest.approx(duty)
