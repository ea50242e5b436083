"""Which modes crash here, remembered."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilotlight.errors import Error
from pilotlight.registry.ladder import COSTS, MODES, Ladder, Outcome


@pytest.fixture
def ladder(tmp_path: Path) -> Ladder:
    return Ladder(tmp_path / "state", clock=lambda: 5.0)


def edit(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the remembered outcome in the file."""
    file = tmp_path / "state" / "ladder.json"
    content = json.loads(file.read_text())
    change(content["outcomes"][0])
    file.write_text(json.dumps(content))


def test_at_first_every_mode_is_tried(ladder: Ladder) -> None:
    """The fastest first."""
    assert ladder.modes("llamacpp") == MODES["llamacpp"]
    assert ladder.outcome("llamacpp") is None


def test_modes_that_crashed_are_not_tried_again(ladder: Ladder) -> None:
    """Safer ones still are."""
    ladder.remember("echo", "no-extra-buffers", "full: SIGILL")
    assert ladder.modes("echo") == ("no-extra-buffers", "plain")


def test_an_outcome_tells_why_and_when(ladder: Ladder) -> None:
    """For the doctor."""
    ladder.remember("echo", "plain", "full: SIGILL")
    outcome = ladder.outcome("echo")
    assert outcome is not None
    assert (outcome.mode, outcome.reason, outcome.since) == ("plain", "full: SIGILL", 5.0)


def test_runtimes_are_remembered_apart(ladder: Ladder) -> None:
    """One's crash is not the other's."""
    ladder.remember("echo", "plain", "crash")
    assert ladder.modes("llamacpp") == MODES["llamacpp"]


def test_the_latest_outcome_holds(ladder: Ladder) -> None:
    """And is the only one of its runtime."""
    ladder.remember("echo", "no-extra-buffers", "crash")
    ladder.remember("echo", "plain", "crash")
    assert [outcome.mode for outcome in ladder.outcomes()] == ["plain"]


def test_what_is_forgotten_is_tried_again(ladder: Ladder) -> None:
    """Also when there was nothing."""
    ladder.remember("echo", "plain", "crash")
    ladder.forget()
    ladder.forget()
    assert ladder.modes("echo") == MODES["echo"]


def test_what_cannot_be_forgotten_is_told(ladder: Ladder, tmp_path: Path) -> None:
    """Which file, and what the system says; here a folder is in its place."""
    file = tmp_path / "state" / "ladder.json"
    file.mkdir(parents=True)
    with pytest.raises(Error, match=rf"{file} cannot be deleted: \w+"):
        ladder.forget()


@pytest.mark.parametrize("field", ["machine", "build"])
def test_another_machine_or_build_starts_at_the_top(ladder: Ladder, tmp_path: Path, field: str) -> None:
    """Its outcome is kept, for when it comes back."""
    ladder.remember("echo", "plain", "crash")
    edit(tmp_path, lambda outcome: outcome.update({field: "other"}))
    assert ladder.modes("echo") == MODES["echo"]
    assert len(ladder.outcomes()) == 1


def test_a_mode_of_another_version_counts_as_none(ladder: Ladder, tmp_path: Path) -> None:
    """We would not know what it costs."""
    ladder.remember("echo", "plain", "crash")
    edit(tmp_path, lambda outcome: outcome.update(mode="careful"))
    assert ladder.modes("echo") == MODES["echo"]
    assert ladder.outcome("echo") is None


OF_WRONG_KIND = json.dumps({"outcomes": [dict.fromkeys(Outcome.__struct_fields__, 3)]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"outcomes": [{"mode": 1}]}',
        '{"outcomes": 3}',
        OF_WRONG_KIND,
        "[" * 100_000,
    ],
)
def test_a_damaged_file_counts_as_empty(ladder: Ladder, tmp_path: Path, text: str) -> None:
    """And is written anew."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ladder.json").write_text(text)
    assert ladder.outcomes() == []
    ladder.remember("echo", "plain", "crash")
    assert ladder.modes("echo") == ("plain",)


def test_only_the_file_is_left_behind(ladder: Ladder, tmp_path: Path) -> None:
    """It is replaced in one go."""
    ladder.remember("echo", "plain", "crash")
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["ladder.json"]


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    """The daemon goes on."""
    (tmp_path / "state").write_text("a file where a directory should be")
    ladder = Ladder(tmp_path / "state")
    ladder.remember("echo", "plain", "crash")
    assert ladder.modes("echo") == MODES["echo"]


def test_every_safe_mode_says_what_it_costs() -> None:
    """The fastest costs nothing."""
    assert {mode for modes in MODES.values() for mode in modes[1:]} == set(COSTS)
