"""What a worker asks of a runtime. A runtime is one-shot: it loads
one model, serves it, and ends with its process."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pilotlight.core import WorkerInfo
from pilotlight.worker.protocol import Computed, Event, Generate, Load, Saved, State, Threads

LONGEST_MESSAGE = 1000
"""Letters: it may quote files of strangers."""


class LoadError(Exception):
    """The model cannot be loaded; the message is for the person who asked for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}...")


class MissingLibraryError(LoadError):
    """The runtime's library is not installed, or cannot be imported."""

    def __init__(self, error: ImportError, module: str, install: str) -> None:
        """What importing `module` raised, and what to install for it."""
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == module:
            super().__init__(f"{module} is not installed; pip install '{install}'")
        else:
            super().__init__(f"{module} cannot be imported: {error}; `pilotlight doctor` says how to mend it")


class Runtime(Protocol):
    """One loaded model. `prepare` may run on another thread; everything else is called by the step loop."""

    def load(self, load: Load, progress: Callable[[float], None]) -> WorkerInfo:
        """Load and warm up; blocks. The first `progress` says that the library is imported.

        Raises `LoadError`.
        """

    def prepare(self, generate: Generate) -> Any:
        """Render and tokenize the prompt and check it. Raises `errors.BadRequest`. Touches no sequence."""

    def start(self, prepared: Any) -> Event:
        """Queue the request's sequences; the event says it is admitted."""

    def cancel(self, request_id: int) -> None:
        """Free its sequences now; unknown ids are fine."""

    def step(self, is_wanted: Callable[[], bool] | None = None) -> Sequence[Event]:
        """One decode step over everything that runs and is not paused; blocks for its length.

        Of what yields it is broken off, without loss but of time, when an interactive request `is_wanted`.
        """

    @property
    def is_brief(self) -> bool:
        """The next step is over before anybody could notice."""

    @property
    def is_fluent(self) -> bool:
        """The next step brings more text so soon that what is held may wait for it."""

    def settle(self) -> None:
        """Put away what the step ended: after every step, once what it brought is sent."""

    def take_computed(self) -> tuple[Computed, ...]:
        """For whom was computed since this was last called, in no order."""

    def hold(self, is_held: bool) -> None:
        """Pause what yields, though nothing interactive runs here; or don't."""

    @property
    def num_paused(self) -> int:
        """Sequences that wait because interactive requests want the machine."""

    @property
    def has_ahead(self) -> bool:
        """A `work_ahead` would do something."""

    def work_ahead(self, is_wanted: Callable[[], bool]) -> None:
        """Nothing is asked for: compute what the next request will probably need, until `is_wanted`."""

    @property
    def has_spare(self) -> bool:
        """A `rest` might give back memory."""

    def rest(self) -> None:
        """Nothing is asked for, nor will it soon: keep no more memory than what may go on needs."""

    @property
    def has_work(self) -> bool:
        """A `step` would do something."""

    def set_threads(self, threads: int, prompt_threads: int) -> Threads:
        """From the next step on, where `Capabilities.live_threads` says so; else nothing changes. Prompts and
        sequences side by side get `prompt_threads`. Returns those that compute from now on."""

    def enough_threads(self, is_wanted: Callable[[], bool]) -> int:
        """Measure how few compute one alone nearly as fast as the best number; blocks for seconds.

        0 if something runs or `is_wanted` meanwhile, if it does not come out, or nothing can be chosen.
        """

    def trim(self) -> None:
        """Give back the memory of what was computed for requests that have ended."""

    def save(self, within_s: float) -> Saved:
        """The last thing: write to the archive, if there is one, what next requests may go on from."""

    def state(self) -> State:
        """Count what is held, checking the invariants."""
