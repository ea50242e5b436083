"""Where a request stands that waits, and about how long it will. Pure: times come from outside."""

from dataclasses import dataclass, field

WEIGHT = 0.3
"""Of the newest request in the mean of how long they run."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A request that waits for a model: at `position` 1 it is next.

    `wait_s` is an estimate from how long others ran, None as long as nobody has ended. More urgent
    ones that come later are not in it.
    """

    position: int
    wait_s: float | None
    is_loaded: bool
    """The model is ready, and the request waits for a place in its worker."""

    @property
    def text(self) -> str:
        """One line for a person."""
        what = "" if self.is_loaded else " for the model to load"
        about = "" if self.wait_s is None else f", about {self.wait_s:.0f} s"
        return f"waiting{what}, position {self.position}{about}"


@dataclass(slots=True)
class Turnover:
    """How long the requests of a model run, and since when those do that run now."""

    _run_s: float = 0.0
    """The mean; 0 as long as nobody has ended."""
    _since: dict[str, float] = field(default_factory=dict)

    def begin(self, request_id: str, now: float) -> None:
        self._since[request_id] = now

    def end(self, request_id: str, now: float) -> None:
        """It ran to its end. What only wanted the model loaded never began."""
        if (since := self._since.pop(request_id, None)) is None:
            return
        run_s = now - since
        self._run_s = run_s if not self._run_s else (1 - WEIGHT) * self._run_s + WEIGHT * run_s

    def drop(self, request_id: str) -> None:
        """It was cancelled: nobody knows how long it would have run."""
        self._since.pop(request_id, None)

    def clear(self) -> None:
        """Nothing runs any more."""
        self._since.clear()

    def wait_s(self, position: int, num_running: int) -> float | None:
        """How long it takes until so many have begun, while so many run side by side."""
        return position * self._run_s / max(1, num_running) if self._run_s else None
