"""What a model is charged for, in bytes: read from headers, else guessed from files; learnt from workers.

Blocks on nothing but a look at a file's size: `known` is what was read before.
"""

from collections.abc import Callable
from pathlib import Path

from pilotlight.core import Cost, Model
from pilotlight.errors import DoesNotFit

WORKER_BYTES = 120 * 2**20
"""A worker with a runtime's library and a tiny model: 66 to 110 MB."""

WEIGHTS_FACTOR = 1.25
"""Weights, what is repacked of them, buffers, and a short conversation."""

HEADROOM = 1.05
"""Over the most a worker ever held."""

KILLED_FACTOR = 1.5
"""It wanted more than it had when the system killed it; nobody knows how much."""


class Estimates:
    """Remembers the most each model's workers held, and whether one was killed for it, for as long as it is
    loaded in the same way; `known` says what is known of a model by other means."""

    def __init__(self, known: Callable[[Model], Cost | None] = lambda _: None) -> None:
        self._known = known
        self._most: dict[str, tuple[Model, int]] = {}
        self._killed: dict[str, Model] = {}

    def estimate(self, model: Model) -> int:
        """Bytes its worker may come to hold."""
        cost = self._known(model)
        expected = cost.at_most.total if cost else _guess(model)
        # Once for all kills: what it held before one of them is known by itself.
        factor = KILLED_FACTOR if self._was_killed(model) else 1.0
        return int(factor * max(expected, HEADROOM * self._held(model)))

    def refusal(self, model: Model) -> DoesNotFit | None:
        """Why the model's own cap does not let it be loaded, as far as known."""
        cost = self._known(model)
        return DoesNotFit(cost.refusal, param="model") if cost and cost.refusal else None

    def record(self, model: Model, num_bytes: int) -> None:
        """A worker held so much."""
        self._most[model.name] = model, max(num_bytes, self._held(model))

    def forget(self, model: str) -> None:
        """What its workers held, and how they ended."""
        self._most.pop(model, None)
        self._killed.pop(model, None)

    def record_killed(self, model: Model) -> None:
        """The system killed a worker for lack of memory: it takes more than was thought."""
        self._killed[model.name] = model

    def _held(self, model: Model) -> int:
        """The most, with the settings and the file that it has now; 0 if that was never seen."""
        known, num_bytes = self._most.get(model.name, (model, 0))
        return num_bytes if model.is_loaded_as(known) else 0

    def _was_killed(self, model: Model) -> bool:
        """With the settings and the file that it has now."""
        known = self._killed.get(model.name)
        return known is not None and model.is_loaded_as(known)


def _guess(model: Model) -> float:
    """For as long as nothing is known of it but how large it is."""
    return WORKER_BYTES + WEIGHTS_FACTOR * _bytes_of_files(model.path)


def _bytes_of_files(path: Path) -> int:
    """What is missing, or not for us to see, weighs nothing: its load fails for a better reason."""
    try:
        files = path.iterdir() if path.is_dir() else (path,)
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0
