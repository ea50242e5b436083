"""Where a request stands that waits, and about how long it will, as far as that is known. Pure: times come
from outside."""

from dataclasses import dataclass, field

from msgspec import Struct

WEIGHT = 0.3
"""Of the newest request in the mean of how long they run."""

LONGEST_S = 600.0
"""What yields and took longer has rested in between, as it does for hours while the policy wants that: how
long it ran is not known."""


class Standing(Struct, frozen=True):
    """A request that waits for a model: at `position` 1 it is next.

    `wait_s` is an estimate from how long others ran and the last load took, None as long as there was none,
    and while nothing goes on. More urgent ones that come later are not in it.
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
    _load_s: float = 0.0
    """What the last load took; 0 as long as there was none."""
    _load_began: float | None = None

    def load_begins(self, now: float) -> None:
        self._load_began = now

    def load_ends(self, now: float) -> None:
        """It is loaded."""
        if self._load_began is not None:
            self._load_s, self._load_began = now - self._load_began, None

    def load_left_s(self, now: float) -> float | None:
        """How long the load will go on; None if that is not known, or it should have ended."""
        if self._load_began is None or now >= self._load_began + self._load_s:
            return None
        return self._load_began + self._load_s - now

    def begin(self, request_id: str, now: float) -> None:
        self._since[request_id] = now

    def end(self, request_id: str, now: float, *, yields: bool) -> None:
        """It ran to its end. What only wanted the model loaded never began."""
        if (since := self._since.pop(request_id, None)) is None:
            return
        run_s = now - since
        if not yields or run_s <= LONGEST_S:
            self._run_s = run_s if not self._run_s else (1 - WEIGHT) * self._run_s + WEIGHT * run_s

    def drop(self, request_id: str) -> None:
        """It was cancelled or refused: nobody knows how long it would have run."""
        self._since.pop(request_id, None)

    def clear(self) -> None:
        """Nothing runs any more, or loads."""
        self._since.clear()
        self._load_began = None

    def wait_s(self, position: int, num_running: int) -> float | None:
        """How long it takes until so many have begun, while so many run side by side."""
        return position * self._run_s / max(1, num_running) if self._run_s else None
