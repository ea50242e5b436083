"""What a model's cap means: the context that stays within it, or why none does.

The cap is `memory` in its table, else `memory.per_model`. Pure arithmetic over an estimate.
"""

from collections.abc import Callable

from pilotlight.core import Model
from pilotlight.registry.budget import written
from pilotlight.registry.cost import PAD_CELLS, Estimate


def context_within(model: Model, default: int, at: Callable[[int], Estimate]) -> tuple[int, str | None]:
    """The context to load the model with, `default` if it is left to the worker; and what is wrong with it.

    One that nobody asked for is shortened to what fits. 0: the worker may choose.
    """
    wanted = model.context or default
    if (cap := model.memory) is None or (needed := at(wanted).most) <= cap:
        return model.context, None
    largest = largest_context(lambda context: at(context).most <= cap, wanted)
    if largest and not model.context:
        return largest, None
    hint = f"a context of {largest} fits" if largest else "no context is small enough"
    return model.context, (
        f"{model.name} needs {written(needed)} with a context of {wanted}, and may take "
        f"{written(cap)} (memory in its [[model]] table, else memory.per_model): {hint}"
    )


def largest_context(fits: Callable[[int], bool], most: int) -> int:
    """The largest one up to this that fits, in steps of llama.cpp's cells; 0: none."""
    low, high = 0, most // PAD_CELLS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * PAD_CELLS) else (low, middle - 1)
    return low * PAD_CELLS
