"""Any load of requests over models that do not fit together: within the budget, and nobody starves."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.errors import Error
from pilotlight.registry.budget import Room
from pilotlight.scheduler.residency import LINGER_S, MIN_TURN_S, TURN_LOADS, Needs, Reason
from pilotlight.scheduler.scheduler import Scheduler

BUDGET = 10
STOP_S = 0.125
PARALLEL = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """A model's size and the seconds its load takes."""

    num_bytes: int
    load_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: when it comes, for which model, and how long its answer takes."""

    at_s: float
    model: str
    answer_s: float
    request_class: RequestClass = RequestClass.INTERACTIVE


@dataclass(slots=True)
class Simulation:
    """Machine and clients; time jumps from event to event. As `Effects` it does what the scheduler says."""

    kinds: dict[str, Kind]
    asks: list[Ask]
    now: float = 0.0
    alive: dict[str, int] = field(default_factory=dict)
    """Bytes of the processes there are."""
    waits: dict[str, float] = field(default_factory=dict)
    loads: int = 0
    scheduler: Scheduler = field(init=False)
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _num: int = 0

    def run(self) -> None:
        """Until everything has been answered."""
        self.scheduler = Scheduler(self, max_queued=len(self.asks))
        self.scheduler.on_budget(Room(BUDGET, kept=BUDGET, most=BUDGET))
        for name, kind in self.kinds.items():
            self.scheduler.on_needs(name, Needs(kind.num_bytes))
        for number, ask in enumerate(self.asks):
            request = Request(str(number), ask.model, Prompt(), Sampling(), request_class=ask.request_class)
            self._at(ask.at_s, lambda request=request: self.scheduler.on_request(request))
        while self._agenda or self.scheduler.next_due < float("inf"):
            self._step()

    def _step(self) -> None:
        due = self.scheduler.next_due
        if self._agenda and self._agenda[0][0] <= due:
            self.now, _, event = heapq.heappop(self._agenda)
            self.scheduler.on_time(self.now)
            event()
        else:
            self.now = max(self.now, due)
            self.scheduler.on_time(self.now)
        self.scheduler.check()
        assert sum(self.alive.values()) <= BUDGET

    def _at(self, when: float, event: Callable[[], None]) -> None:
        self._num += 1
        heapq.heappush(self._agenda, (when, self._num, event))

    # --- effects ---

    def start(self, model: str) -> None:
        assert model not in self.alive
        self.loads += 1
        self.alive[model] = self.kinds[model].num_bytes
        self._at(self.now + self.kinds[model].load_s, lambda: self.scheduler.on_worker_ready(model, PARALLEL))

    def stop(self, model: str, reason: Reason) -> None:
        def event() -> None:
            del self.alive[model]
            self.scheduler.on_worker_gone(model, None)

        self._at(self.now + STOP_S, event)

    def dispatch(self, request: Request) -> None:
        ask = self.asks[int(request.id)]
        self.waits[request.id] = self.now - ask.at_s
        self._at(self.now + ask.answer_s, lambda: self.scheduler.on_request_done(request.id))

    def cancel(self, request: Request) -> None:
        raise AssertionError("nobody leaves")

    def fail(self, request: Request, error: Error) -> None:
        raise AssertionError(f"everybody fits alone, but: {error}")

    def idle(self, model: str) -> None:
        """Nothing to do."""


def bound(kinds: dict[str, Kind], asks: list[Ask]) -> float:
    """What `scheduler.residency` promises: every model has its turn, its longest answer and its load."""
    longest = max((ask.answer_s for ask in asks), default=0.0)
    return sum(
        max(MIN_TURN_S, TURN_LOADS * kind.load_s) + LINGER_S + longest + STOP_S + kind.load_s
        for kind in kinds.values()
    )


eighths = st.integers(0, 40).map(lambda n: n / 8)
kinds = st.dictionaries(
    st.sampled_from("abcd"), st.builds(Kind, st.integers(1, BUDGET), eighths), min_size=2, max_size=4
)


@st.composite
def worlds(draw: st.DrawFn, classes: Sequence[RequestClass] = (RequestClass.INTERACTIVE,)) -> Simulation:
    drawn = draw(kinds)
    times = eighths.map(lambda t: t * 4)
    ask = st.builds(Ask, times, st.sampled_from(sorted(drawn)), eighths, st.sampled_from(classes))
    return Simulation(drawn, draw(st.lists(ask, min_size=1, max_size=30)))


@settings(max_examples=120)
@given(worlds())
def test_everybody_is_served_within_the_budget_and_in_time(world: Simulation) -> None:
    """Processes never hold more than the budget, also while one ends and another loads."""
    world.run()
    assert len(world.waits) == len(world.asks)
    assert max(world.waits.values()) <= bound(world.kinds, world.asks)


@settings(max_examples=100)
@given(worlds(list(RequestClass)))
def test_the_less_urgent_cost_the_interactive_nothing(world: Simulation) -> None:
    """Those wait no longer than among themselves; and everybody is served in the end."""
    world.run()
    assert len(world.waits) == len(world.asks)
    waits = [world.waits[str(n)] for n, ask in enumerate(world.asks) if not ask.request_class.yields]
    assert max(waits, default=0.0) <= bound(world.kinds, world.asks)


def test_two_models_that_alternate_without_a_pause_are_served_in_batches() -> None:
    """A load for every request would be 400 loads."""
    kinds = {"a": Kind(6, 1.0), "b": Kind(6, 1.0)}
    asks = [Ask(n / 8, model, 0.125) for n in range(200) for model in "ab"]
    world = Simulation(kinds, asks)
    world.run()
    assert world.loads <= 2 * 200 / 8 / TURN_LOADS
    assert max(world.waits.values()) <= bound(kinds, asks)
