"""Requests from a file or from a seed."""

from pathlib import Path

import pytest

from pilotlight.core import RequestClass
from pilotlight.errors import ConfigError
from pilotlight.simulate.traces import Ask, generated, recorded


def test_a_seed_gives_the_same_requests(tmp_path: Path) -> None:
    """About twenty an hour, and another seed others."""
    assert generated(3600, 1) == generated(3600, 1) != generated(3600, 2)
    assert 15 <= len(generated(3600, 1).asks) <= 25


def test_a_recorded_file_is_replayed_in_order_of_time(tmp_path: Path) -> None:
    """Blank lines are fine."""
    file = tmp_path / "requests.jsonl"
    file.write_text(
        '{"at": 9, "class": "batch", "tokens": 7}\n\n{"at": 1.5, "class": "interactive", "tokens": 3}\n'
    )
    assert recorded(file).asks == (Ask(1.5, RequestClass.INTERACTIVE, 3), Ask(9.0, RequestClass.BATCH, 7))
    assert not recorded(file).is_saturated


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("x", "Expecting value"),
        ("[]", '"at", "class" and "tokens"'),
        ('{"at": 1, "class": "batch"}', '"at", "class" and "tokens"'),
        ('{"at": -1, "class": "batch", "tokens": 1}', '"at" is in seconds'),
        ('{"at": NaN, "class": "batch", "tokens": 1}', '"at" is in seconds'),
        ('{"at": true, "class": "batch", "tokens": 1}', '"at" is in seconds'),
        ('{"at": 1, "class": "urgent", "tokens": 1}', "interactive, background, batch"),
        ('{"at": 1, "class": [], "tokens": 1}', "interactive, background, batch"),
        ('{"at": 1, "class": "batch", "tokens": 0}', '"tokens" is a number'),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, why: str) -> None:
    """With its number and what is wrong."""
    file = tmp_path / "requests.jsonl"
    file.write_text(f'{{"at": 1, "class": "batch", "tokens": 1}}\n{line}\n')
    with pytest.raises(ConfigError, match="line 2: ") as caught:
        recorded(file)
    assert why in caught.value.message


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_file_that_says_nothing_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, or no text."""
    file = tmp_path / "requests.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"requests\.jsonl"):
        recorded(file)
