"""A model's own cap: which context it leaves, and what is refused."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from gguf_factory import write_tiny_gguf
from pilotlight.core import Cost, Model
from pilotlight.errors import DoesNotFit
from pilotlight.notices import Notices
from pilotlight.registry.costs import Costs
from pilotlight.registry.estimate import Estimates
from pilotlight.registry.ladder import Ladder
from pilotlight.registry.loader import Loader

MIB = 2**20


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Trained for a long context, with cells of 256 bytes a token."""
    return Model("tiny", write_tiny_gguf(tmp_path / "tiny.gguf", context=8192, layers=16))


@pytest.fixture
def costs(tmp_path: Path) -> Costs:
    return Costs(tmp_path / "state", Ladder(tmp_path / "state"))


def needed(costs: Costs, model: Model, context: int) -> int:
    """Bytes with that context, at most."""
    return costs.estimate(replace(model, context=context, memory=None)).at_most.total


def test_a_context_that_is_left_to_the_worker_is_the_longest_that_stays_within(
    costs: Costs, model: Model
) -> None:
    """One step of cells more would not."""
    cap = (needed(costs, model, 4096) + needed(costs, model, 4096 + 256)) // 2
    cost = costs.estimate(replace(model, memory=cap))
    assert (cost.context, cost.refusal) == (4096, None)
    assert cost.at_most.total == needed(costs, model, 4096) <= cap


def test_a_cap_that_is_large_enough_changes_nothing(costs: Costs, model: Model) -> None:
    """The worker still chooses."""
    plain = costs.estimate(model)
    assert costs.estimate(replace(model, memory=plain.at_most.total)) == plain
    assert plain.context == 0


def test_a_context_that_takes_more_is_refused_with_the_numbers(costs: Costs, model: Model) -> None:
    """And with one that would do."""
    cap = needed(costs, model, 2048)
    refusal = costs.estimate(replace(model, memory=cap, context=8192)).refusal or ""
    sizes = [f"{size / MIB:.0f} MiB" for size in (needed(costs, model, 8192), cap)]
    assert refusal == (
        f"tiny needs {sizes[0]} with a context of 8192, and may take {sizes[1]} (memory in its "
        "[[model]] table, else memory.per_model): a context of 2048 fits"
    )


@pytest.mark.parametrize("context", [0, 512])
def test_a_cap_below_the_weights_is_refused(costs: Costs, model: Model, context: int) -> None:
    """No context helps, set or not."""
    refusal = costs.estimate(replace(model, memory=MIB, context=context)).refusal or ""
    assert refusal.endswith("else memory.per_model): no context is small enough")


async def test_a_model_is_loaded_with_the_context_that_its_cap_leaves(
    tmp_path: Path, costs: Costs, model: Model
) -> None:
    """And what is measured then counts for it when it is loaded again."""
    capped = replace(model, memory=needed(costs, model, 2048), threads=1)
    loader = Loader(Ladder(tmp_path / "state"), costs, Notices(clock=lambda: 0.0), 20)
    worker = await loader.load(capped, lambda _: None)
    await worker.stop()
    assert worker.info is not None
    assert worker.info.context == 2048
    again = costs.estimate(capped)
    assert (again.is_measured, again.context) == (True, 2048)


async def test_what_its_cap_refuses_is_not_loaded(tmp_path: Path, costs: Costs, model: Model) -> None:
    """No process is started for it."""
    loader = Loader(Ladder(tmp_path / "state"), costs, Notices(clock=lambda: 0.0), 20)
    with pytest.raises(DoesNotFit, match=re.escape("with a context of 8192")):
        await loader.load(replace(model, memory=needed(costs, model, 1024), context=8192), lambda _: None)


def test_a_capped_model_is_charged_what_it_may_take(costs: Costs, model: Model) -> None:
    """No more, and no less; and before anybody asks who could make room, it is said what is refused."""
    capped = replace(model, memory=80 * MIB)
    known: Cost = costs.estimate(capped)
    estimates = Estimates(lambda _: known)
    assert known.at_most.total == estimates.estimate(capped) <= 80 * MIB
    assert estimates.refusal(capped) is None
    too_long = replace(capped, context=8192, memory=50 * MIB)
    refused = Estimates(lambda _: costs.estimate(too_long)).refusal(too_long)
    assert refused is not None
    assert (refused.status, refused.code) == (400, "model_does_not_fit")
