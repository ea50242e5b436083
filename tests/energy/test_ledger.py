"""Whose joules they were: divided among all that computed, and none lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.energy.accounts import Energy
from pilotlight.energy.ledger import Ledger
from pilotlight.energy.meters import Gauge, GpuGauge, Method
from pilotlight.power.reading import Reading, Supply
from pilotlight.worker.protocol import Computed


class Counter:
    """A meter that counts what a test says."""

    method = Method.RAPL
    scope = "package"
    lacks = None

    def __init__(self) -> None:
        self.count: float | None = 1000.0

    def joules(self, now: float) -> float | None:
        return self.count

    def counts(self, pid: int) -> bool:
        return True

    def has_news(self, since: float) -> bool:
        return True


class Bench:
    """A ledger with a counter, and processes of which a test says what they used; a second between calls."""

    def __init__(self, watts_per_core: float = 0.0) -> None:
        self.counter = Counter()
        self.gauge = Gauge(Method.BATTERY, "system", lambda reading: reading.watts, "there is none")
        self.gpu = GpuGauge()
        self.cpu: dict[int, float] = {}
        self.ledger = Ledger(
            (self.counter, self.gauge, self.gpu), watts_per_core, lambda pid: self.cpu.get(pid, 0.0)
        )
        self.now = 100.0

    def begin(self, number: int, request: Request) -> None:
        self.ledger.began(number, request, pid_of(request.model), self._tick())

    def count(self, joules: float) -> None:
        assert self.counter.count is not None
        self.counter.count += joules

    def say(self, model: str, *parts: Computed) -> None:
        self.ledger.computed(model, parts, self._tick())

    def end(self, number: int, request: Request) -> Energy:
        return self.ledger.ended(number, request, self._tick())

    def read(self, watts: float | None) -> None:
        self.ledger.on_reading(Reading(supply=Supply.BATTERY, watts=watts, full_wh=10.0), self._tick())

    def read_gpu(self, watts: float, *models: str) -> None:
        pids = tuple(map(pid_of, models))
        self.ledger.on_reading(Reading(gpu_watts=watts, gpu_pids=pids), self._tick())

    def _tick(self) -> float:
        self.now += 1
        return self.now


def pid_of(model: str) -> int:
    return ord(model[0])


def ask(
    model: str = "a", request_class: RequestClass = RequestClass.INTERACTIVE, app: str = "curl"
) -> Request:
    return Request("r", model, Prompt(), Sampling(), request_class=request_class, app=app)


def joules(energy: Energy) -> float:
    assert energy.prefill_joules is not None and energy.decode_joules is not None, energy.reason
    return energy.prefill_joules + energy.decode_joules


def test_a_request_alone_has_all_of_it_split_by_time() -> None:
    """A quarter of the time was its prompt's."""
    bench, request = Bench(), ask()
    bench.begin(1, request)
    bench.count(8)
    bench.say("a", Computed(1, prefill_s=0.5, prefill_tokens=100, decode_s=1.5, decode_tokens=30))
    energy = bench.end(1, request)
    assert (energy.method, energy.scope, energy.share) == ("rapl", "package", 1.0)
    assert (energy.prefill_joules, energy.decode_joules) == (2, 6)
    counted = bench.ledger.totals.models["a", Method.RAPL]
    assert (counted.prefill_tokens, counted.decode_tokens) == (100, 30)


def test_side_by_side_each_has_what_was_computed_for_it() -> None:
    """Together they have what was counted, and each is told its share."""
    bench, one, other = Bench(), ask(), ask()
    bench.begin(1, one)
    bench.begin(2, other)
    bench.count(9)
    bench.say("a", Computed(1, decode_s=1.0), Computed(2, decode_s=2.0))
    first = bench.end(1, one)
    bench.count(4)
    bench.say("a", Computed(2, decode_s=0.1))
    second = bench.end(2, other)
    assert (joules(first), joules(second)) == (3, 10)
    assert (first.share, second.share) == (pytest.approx(3 / 9), pytest.approx(10 / 13))


def test_workers_share_by_processor_time() -> None:
    """Whoever says first what it computed gets no more for that."""
    bench, one, other = Bench(), ask("a"), ask("b")
    bench.begin(1, one)
    bench.begin(2, other)
    bench.cpu = {pid_of("a"): 3.0, pid_of("b"): 1.0}
    bench.count(20)
    bench.say("a", Computed(1, decode_s=0.1))
    bench.say("b", Computed(2, decode_s=5.0))
    assert (joules(bench.end(1, one)), joules(bench.end(2, other))) == (15, 5)


def test_what_a_worker_used_alone_counts_not_twice() -> None:
    """Nobody looked at its processor time while it was alone."""
    bench, one, other = Bench(), ask("a"), ask("b")
    bench.begin(1, one)
    bench.cpu = {pid_of("a"): 100.0}
    bench.begin(2, other)
    bench.cpu = {pid_of("a"): 101.0, pid_of("b"): 1.0}
    bench.count(20)
    bench.say("b", Computed(2, decode_s=5.0))
    assert joules(bench.end(2, other)) == 10


def test_while_all_are_paused_it_is_nobodys() -> None:
    """What yields rests, and a look at the machine counts meanwhile."""
    bench, request = Bench(), ask(request_class=RequestClass.BACKGROUND)
    bench.begin(1, request)
    bench.ledger.paused("a", 1, bench.now)
    bench.count(50)
    bench.read(None)
    bench.ledger.paused("a", 0, bench.now + 1)
    bench.count(2)
    bench.say("a", Computed(1, decode_s=1.0))
    energy = bench.end(1, request)
    assert (joules(energy), energy.share) == (2, pytest.approx(2 / 52))
    assert bench.ledger.unattributed[Method.RAPL] == 50


def test_between_requests_nothing_is_counted() -> None:
    """Not even as nobody's."""
    bench, request = Bench(), ask()
    for _ in range(2):
        bench.count(1000)
        bench.begin(1, request)
        bench.say("a", Computed(1, decode_s=1.0))
        assert joules(bench.end(1, request)) == 0
    assert (bench.ledger.metered[Method.RAPL], bench.ledger.unattributed[Method.RAPL]) == (0, 0)


def test_a_meter_that_failed_in_between_tells_nothing() -> None:
    """A part of the joules is not what the answer took."""
    bench, request = Bench(), ask()
    bench.begin(1, request)
    bench.count(5)
    bench.say("a", Computed(1, decode_s=1.0))
    bench.counter.count = None
    bench.say("a", Computed(1, decode_s=1.0))
    bench.counter.count = 2000.0
    bench.say("a", Computed(1, decode_s=1.0))
    energy = bench.end(1, request)
    assert (energy.method, energy.prefill_joules) == ("none", None)
    assert energy.reason == "no meter counted all of it; GET /admin/energy says why"


def test_a_gauge_that_said_nothing_new_is_not_believed_for_one_request() -> None:
    """It may have measured before the request came; in the totals that evens out."""
    bench, request = Bench(), ask()
    bench.counter.count = None
    bench.read(10)
    bench.begin(1, request)
    bench.read(10)
    bench.say("a", Computed(1, decode_s=1.0))
    energy = bench.end(1, request)
    assert energy.method == "none"
    assert energy.reason == "its meter (battery) measured nothing anew while this was computed"
    assert bench.ledger.totals.models["a", Method.BATTERY].joules == pytest.approx(20)


def test_on_battery_it_is_told_in_percent_too() -> None:
    """Of 10 Wh; 5 W for a second and 7 W for another one."""
    bench, request = Bench(), ask()
    bench.counter.count = None
    bench.read(5)
    bench.begin(1, request)
    bench.read(7)
    bench.say("a", Computed(1, decode_s=1.0))
    energy = bench.end(1, request)
    assert (energy.method, joules(energy)) == ("battery", pytest.approx(12))
    assert energy.battery_percent == pytest.approx(100 * 12 / 36_000)


def test_a_gpu_counts_for_the_model_on_it_alone_and_beside_the_processor() -> None:
    """What the two count has nothing in common, so it adds up."""
    bench, on_gpu, beside = Bench(), ask("a"), ask("b")
    bench.read_gpu(50, "a")
    bench.begin(1, on_gpu)
    bench.begin(2, beside)
    bench.count(8)
    bench.read_gpu(60, "a")
    bench.say("a", Computed(1, decode_s=1.0))
    bench.say("b", Computed(2, decode_s=1.0))
    first, second = bench.end(1, on_gpu), bench.end(2, beside)
    assert (first.method, first.scope, first.share) == ("rapl+nvml", "package+gpu", pytest.approx(164 / 288))
    assert joules(first) == pytest.approx(4 + 2 * 50 + 60)
    assert (second.method, joules(second)) == ("rapl", 4)


def test_processor_time_is_the_last_resort() -> None:
    """Only if the user has said what a core draws."""
    bench, request = Bench(watts_per_core=5), ask()
    bench.counter.count = None
    bench.begin(1, request)
    bench.cpu = {pid_of("a"): 2.0}
    bench.say("a", Computed(1, decode_s=1.0))
    energy = bench.end(1, request)
    assert (energy.method, energy.scope, joules(energy)) == ("model", "process", 10)


def test_who_left_before_anything_was_computed_took_nothing() -> None:
    """And what comes of it later is nobody's."""
    bench, one, other = Bench(), ask(), ask()
    bench.begin(1, one)
    bench.begin(2, other)
    assert bench.end(1, one).reason == "nothing was computed"
    bench.count(4)
    bench.say("a", Computed(1, decode_s=1.0), Computed(2, decode_s=1.0))
    assert joules(bench.end(2, other)) == bench.ledger.unattributed[Method.RAPL] == 2


def test_what_comes_after_the_last_request_left_is_dropped() -> None:
    """Its worker's word was on the way."""
    bench, request = Bench(), ask()
    bench.begin(1, request)
    bench.end(1, request)
    bench.say("a", Computed(1, decode_s=1.0))
    assert bench.ledger.totals.models == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("begin", "say", "end", "pause", "read")),
        st.sampled_from("ab"),
        st.integers(1, 3),
        st.floats(0, 100),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_all_parts_together_are_what_was_counted(steps: list[tuple[str, str, int, float]]) -> None:
    """Whatever happens in whatever order: joules are divided, never made or lost."""
    bench = Bench()
    running: dict[tuple[str, int], Request] = {}
    for what, model, number, amount in steps:
        bench.count(amount)
        bench.cpu[pid_of(model)] = bench.cpu.get(pid_of(model), 0.0) + amount
        request = running.get((model, number))
        match what:
            case "begin" if request is None:
                running[model, number] = ask(model, list(RequestClass)[number - 1])
                bench.begin(number, running[model, number])
            case "end" if request is not None:
                bench.end(number, running.pop((model, number)))
            case "say":
                bench.say(model, Computed(number, prefill_s=amount), Computed(3, decode_s=1.0))
            case "pause":
                bench.ledger.paused(model, number - 1, bench.now)
            case "read":
                bench.read(amount)
    for (model, number), request in running.items():
        bench.say(model, Computed(number, decode_s=1.0))
        bench.end(number, request)
    ledger = bench.ledger
    for parts in (ledger.totals.models, ledger.totals.apps):
        had = sum(counted.joules for (*_, method), counted in parts.items() if method is Method.RAPL)
        assert had + ledger.unattributed.get(Method.RAPL, 0.0) == pytest.approx(
            ledger.metered.get(Method.RAPL, 0.0)
        )
