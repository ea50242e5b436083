"""What models are charged for."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pilotlight.core import Cost, Model, Size
from pilotlight.registry.estimate import HEADROOM, KILLED_FACTOR, WEIGHTS_FACTOR, WORKER_BYTES, Estimates

WEIGHTS = 10**9


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A file of a gigabyte, with nothing in it."""
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:
        file.truncate(WEIGHTS)
    return Model("a", path)


def cost(at_most: int) -> Cost:
    """Of a model whose header was read."""
    size = Size(WEIGHTS, 0)
    return Cost(size, Size(at_most, 0), size, is_measured=False)


def test_a_model_that_was_never_loaded_is_charged_by_its_size(model: Model) -> None:
    """Its weights, something for its first conversations, and a worker."""
    assert Estimates().estimate(model) == WORKER_BYTES + WEIGHTS_FACTOR * WEIGHTS


def test_what_a_full_context_takes_is_charged_once_it_is_known(model: Model) -> None:
    """In the place of the guess, whether that was more or less."""
    assert Estimates(lambda _: cost(3 * WEIGHTS)).estimate(model) == 3 * WEIGHTS
    assert Estimates(lambda _: cost(WEIGHTS)).estimate(model) == WEIGHTS


def test_what_a_worker_held_counts_more_than_arithmetic(model: Model) -> None:
    """Where it was more."""
    estimates = Estimates(lambda _: cost(2 * WEIGHTS))
    estimates.record(model, WEIGHTS)
    assert estimates.estimate(model) == 2 * WEIGHTS
    estimates.record(model, 3 * WEIGHTS)
    assert estimates.estimate(model) == pytest.approx(HEADROOM * 3 * WEIGHTS)


def test_what_a_worker_held_is_remembered(model: Model) -> None:
    """The most of it."""
    estimates = Estimates()
    for num_bytes in (2, 4, 3):
        estimates.record(model, num_bytes * WEIGHTS)
    assert estimates.estimate(model) == pytest.approx(HEADROOM * 4 * WEIGHTS)


def test_a_killed_worker_wanted_more(model: Model) -> None:
    """Than it was charged for."""
    estimates = Estimates()
    before = estimates.estimate(model)
    estimates.record_killed(model)
    assert estimates.estimate(model) == pytest.approx(KILLED_FACTOR * before)


def test_workers_killed_again_and_again_want_no_more_than_one(model: Model) -> None:
    """Else a few kills in a daemon's life would be a model that never fits; what one held counts, though."""
    estimates = Estimates(lambda _: cost(2 * WEIGHTS))
    for _ in range(3):
        estimates.record_killed(model)
        assert estimates.estimate(model) == KILLED_FACTOR * 2 * WEIGHTS
    estimates.record(model, 4 * WEIGHTS)
    estimates.record_killed(model)
    assert estimates.estimate(model) == pytest.approx(KILLED_FACTOR * HEADROOM * 4 * WEIGHTS)


def test_what_nobody_knows_any_more_was_not_killed_either(model: Model) -> None:
    """Another model may get its name."""
    estimates = Estimates()
    estimates.record_killed(model)
    estimates.forget(model.name)
    assert estimates.estimate(model) == Estimates().estimate(model)


@pytest.mark.parametrize("change", [{"context": 512}, {"created": 5}, {"path": Path("other.gguf")}])
def test_with_other_settings_or_another_file_it_is_another_matter(
    model: Model, change: dict[str, Any]
) -> None:
    """What ran out of memory with the old ones may be tried with the new ones."""
    estimates = Estimates()
    estimates.record_killed(model)
    changed = replace(model, **change)
    assert estimates.estimate(changed) == Estimates().estimate(changed)
    estimates.record(changed, 3 * WEIGHTS)
    assert estimates.estimate(changed) == pytest.approx(HEADROOM * 3 * WEIGHTS)


def test_what_its_worker_is_not_told_makes_no_difference(model: Model) -> None:
    """Another alias, say, that a store has for it."""
    estimates = Estimates()
    estimates.record(model, 3 * WEIGHTS)
    assert estimates.estimate(replace(model, aliases=("x",))) == pytest.approx(HEADROOM * 3 * WEIGHTS)


def test_a_file_that_is_gone_weighs_nothing(tmp_path: Path) -> None:
    """Its load will say so better."""
    assert Estimates().estimate(Model("a", tmp_path / "gone.gguf")) == WORKER_BYTES
