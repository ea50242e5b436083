"""Durations as clients of Ollama write them."""

import math

import pytest

from pilotlight.registry import keep_alive


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (300, 300.0),
        (0.5, 0.5),
        (0, 0.0),
        ("0", 0.0),
        ("300", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("24h", 86400.0),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1m", math.inf),
        pytest.param(10**310, math.inf, id="10**310"),
        pytest.param(-(10**310), math.inf, id="-10**310"),
    ],
)
def test_a_duration_is_seconds(value: float | str, expected: float) -> None:
    """Anything negative is forever, and so is more than a float can be."""
    assert keep_alive.seconds(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "soon", "5 m", "m5", "5y", "--1", "5m-1m", "nan", "inf", pytest.param("1s" * 100, id="long")],
)
def test_what_is_no_duration_is_refused(value: str) -> None:
    """With what would be right, also where that is another kind of duration."""
    with pytest.raises(ValueError, match="must be seconds"):
        keep_alive.seconds(value)
    with pytest.raises(ValueError, match="must have an end"):
        keep_alive.seconds(value, "must have an end")
