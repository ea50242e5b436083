"""Any order of events: nobody is lost, nobody leaves twice, and the order of arrival is kept."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.errors import Error, ThermalCritical, WorkerFailed
from pilotlight.registry.budget import Room
from pilotlight.scheduler.limits import Limits
from pilotlight.scheduler.residency import Needs, Reason
from pilotlight.scheduler.scheduler import Scheduler

MODELS = {"a": 6, "b": 6, "c": 4}
"""With the bytes they need."""
BUDGET = 10
MAX_QUEUED = 4
PARALLEL = 3
MOST_ANSWERS = PARALLEL + 1
"""Of one request: it runs alone then, beside nothing of its kind."""

LIMITS = st.builds(
    Limits,
    st.dictionaries(st.tuples(st.sampled_from(RequestClass), st.booleans()), st.integers(1, MOST_ANSWERS)),
    st.dictionaries(st.sampled_from(RequestClass), st.sampled_from([0.0, 20.0, 100.0])),
)


class World(RuleBasedStateMachine):
    """Plays clients and workers; as `Effects` it knows what the scheduler believes."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(self, MAX_QUEUED)
        self.scheduler.on_budget(Room(BUDGET, kept=BUDGET, most=BUDGET))
        for model, num_bytes in MODELS.items():
            self.scheduler.on_needs(model, Needs(num_bytes, keep_alive_s=60))
        self.now = 0.0
        self.ending: set[str] = set()
        self.loading: set[str] = set()
        self.up: set[str] = set()
        self.ending: set[str] = set()
        self.inside: dict[str, Request] = {}
        """Asked and not yet left."""
        self.running: dict[str, Request] = {}
        self.num_asked = 0
        self.last_dispatched: Counter[tuple[str, RequestClass, str]] = Counter()
        self.limits = Limits()
        self.held: set[RequestClass] = set()
        self.is_stopping = False

    # --- effects ---

    def start(self, model: str) -> None:
        assert model not in self.loading | self.up | self.ending
        assert any(request.request_class not in self.held for request in self.waiting(model))
        self.loading.add(model)

    def stop(self, model: str, reason: Reason) -> None:
        assert model in self.loading | self.up
        assert not any(request.model == model for request in self.running.values())
        self.loading.discard(model)
        self.up.discard(model)
        self.ending.add(model)

    def dispatch(self, request: Request) -> None:
        assert request.model in self.up
        assert request.id in self.inside
        assert request.id not in self.running
        whose = request.model, request.request_class, request.client
        assert int(request.id) > self.last_dispatched[whose]
        self.last_dispatched[whose] = int(request.id)
        waiting = [other for other in self.waiting(request.model) if other.id != request.id]
        assert all(request.rank <= other.rank for other in waiting), "a more urgent one waits"
        self.running[request.id] = request
        beside = [other for other in self.running.values() if other.model == request.model]
        # Of more sequences than there are the worker runs none.
        rows = [other for other in beside if other.n <= PARALLEL]
        assert sum(other.n for other in rows if request.yields or not other.yields) <= PARALLEL
        assert sum(other.n for other in rows) <= 2 * MOST_ANSWERS
        self.keeps_to_its_limit(request, beside)

    def keeps_to_its_limit(self, request: Request, beside: list[Request]) -> None:
        limit = self.limits.side_by_side(request)
        like_it = [other.n for other in beside if other.request_class is request.request_class and other.n]
        assert limit is None or not request.n or sum(like_it) <= limit or len(like_it) == 1

    def cancel(self, request: Request) -> None:
        del self.running[request.id]

    def fail(self, request: Request, error: Error) -> None:
        self.running.pop(request.id, None)
        del self.inside[request.id]

    def idle(self, model: str) -> None:
        assert not any(request.model == model for request in self.running.values())

    def waiting(self, model: str) -> list[Request]:
        """As far as we know."""
        inside = [request for id, request in self.inside.items() if id not in self.running]
        return [request for request in inside if request.model == model]

    # --- events ---

    @rule(
        model=st.sampled_from(sorted(MODELS)),
        n=st.integers(0, MOST_ANSWERS),
        request_class=st.sampled_from(RequestClass),
        client=st.sampled_from("xyz"),
        is_overridden=st.booleans(),
        side_by_side=st.none() | st.integers(1, PARALLEL),
    )
    def ask(
        self,
        model: str,
        n: int,
        request_class: RequestClass,
        client: str,
        is_overridden: bool,
        side_by_side: int | None,
    ) -> None:
        self.num_asked += 1
        id = str(self.num_asked)
        request = Request(
            id, model, Prompt(text=""), Sampling(), n=n, request_class=request_class, client=client,
            is_overridden=is_overridden and not request_class.yields, side_by_side=side_by_side,
        )  # fmt: skip
        self.inside[request.id] = request
        self.scheduler.on_request(request)

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.loading)))
        self.loading.remove(model)
        self.up.add(model)
        self.scheduler.on_worker_ready(model, PARALLEL)

    @precondition(lambda self: self.loading | self.up)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.loading | self.up)))
        self.loading.discard(model)
        self.up.discard(model)
        self.scheduler.on_worker_gone(model, WorkerFailed("gone"))

    @precondition(lambda self: self.ending)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.ending)))
        self.ending.remove(model)
        self.scheduler.on_worker_gone(model, None)

    @rule(model=st.sampled_from(sorted(MODELS)))
    def unload(self, model: str) -> None:
        self.scheduler.on_unload(model)

    @rule(model=st.sampled_from(sorted(MODELS)))
    def change(self, model: str) -> None:
        self.scheduler.on_change(model)

    @rule(limits=LIMITS)
    def limit(self, limits: Limits) -> None:
        self.limits = limits
        self.scheduler.on_limits(limits)

    @rule(held=st.sets(st.sampled_from([one for one in RequestClass if one.yields])))
    def hold(self, held: set[RequestClass]) -> None:
        self.held = held
        self.scheduler.on_held(held)

    @rule(request_class=st.sampled_from(RequestClass))
    def refuse(self, request_class: RequestClass) -> None:
        before = set(self.running)
        self.scheduler.on_refusals({request_class: ThermalCritical("too hot")})
        left = [one for one in self.inside.values() if one.request_class is request_class and one.n]
        assert {one.id for one in left} <= before

    @rule(seconds=st.sampled_from([0.25, 1.0, 20.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.on_time(self.now)
        assert self.scheduler.next_due > self.now

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[id], self.inside[id]
        self.scheduler.on_request_done(id)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.inside)))
        self.inside.pop(id)
        self.scheduler.on_cancel(id)

    @rule(id=st.integers(0, 20).map(str))
    def leave_late(self, id: str) -> None:
        if id not in self.inside:
            self.scheduler.on_cancel(id)
            self.scheduler.on_request_done(id)

    @precondition(lambda self: self.num_asked > 10)
    @rule()
    def shut_down(self) -> None:
        self.is_stopping = True
        self.scheduler.on_shutdown()

    # --- what always holds ---

    @invariant()
    def agrees(self) -> None:
        self.scheduler.check()
        lines = [self.scheduler.line(model) for model in MODELS]
        waiting = {request.id for line in lines for request in line.queue}
        assert {id for line in lines for id in line.running} == set(self.running)
        assert waiting == set(self.inside) - set(self.running)
        queued = Counter(self.inside[id].request_class for id in waiting if self.inside[id].n)
        assert max(queued.values(), default=0) <= MAX_QUEUED
        assert not (waiting and self.is_stopping)
        alive = self.loading | self.up | self.ending
        assert sum(MODELS[model] for model in alive) == self.scheduler.bytes_charged <= BUDGET


TestAnyOrderOfEvents = World.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
