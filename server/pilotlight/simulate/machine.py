"""The machine at work: the real scheduler over a simulated worker, in virtual time.

It hears of requests and readings as the daemon's scheduler and controller do, and nothing of what the
simulation knows besides.
"""

import random

from msgspec import Struct

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.errors import Error
from pilotlight.scheduler.residency import Reason
from pilotlight.scheduler.scheduler import Scheduler
from pilotlight.simulate.body import Heat
from pilotlight.simulate.governors import Governor
from pilotlight.simulate.platforms import Platform
from pilotlight.simulate.policies import Orders, Policy
from pilotlight.simulate.record import Record, Sample
from pilotlight.simulate.sensors import Instruments, Thermometer
from pilotlight.simulate.traces import BACKGROUND_TOKENS, Ask, Trace
from pilotlight.simulate.worker import Job, Work, Worker

TICK_S = 0.25
TICKS_PER_S = 4
MODEL = "model"
NUM_WAITING = 2
"""Background requests that there are at any time, when there is no end of them."""

NUM_SAMPLES = 1000
"""Of a plot."""


class Scenario(Struct, frozen=True):
    """What happens to a machine: who throttles, who asks, and whether it is plugged in. `seed` is the
    sensor's."""

    platform: Platform
    governor: Governor
    trace: Trace
    is_on_battery: bool = False
    seed: int = 0


class Machine:
    """Owns its clock and all that changes with it; the scheduler's `Effects`."""

    def __init__(self, scenario: Scenario, policy: Policy) -> None:
        chip = scenario.platform.chip
        self.record = Record()
        self._scenario = scenario
        self._policy = policy
        self._worker = Worker(scenario.platform)
        self._heat = Heat(scenario.platform.body, TICK_S, chip.idle)
        thermometer = Thermometer(random.Random(f"thermometer {scenario.seed}"))
        self._instruments = Instruments(scenario.platform.trip.celsius, thermometer)
        self._scheduler = Scheduler(self, max_queued=len(scenario.trace.asks) + NUM_WAITING)
        self._now = 0.0
        self._num_asked = 0
        """Of the trace."""
        self._held: list[Ask] = []
        """Of those, what the policy defers."""
        self._asked: dict[str, Ask] = {}
        """Every request, by id."""
        self._is_starting = False
        self._limit = 1.0
        self._load = 0.0
        """Seconds of all cores that were used since the governor looked, which it does once a second."""
        self._num_background = 0
        """Requests of background work that are not done."""
        self._orders = Orders()
        self._sampled_tokens = 0.0

    def run(self, seconds: float) -> Record:
        """Let so many seconds pass, or fewer if the battery is empty before."""
        every = max(1, round(seconds / NUM_SAMPLES))
        for second in range(int(seconds)):
            self._now = float(second)
            self._look()
            for _ in range(TICKS_PER_S):
                self._ask()
                self._step()
                self._now += TICK_S
            if second % every == 0:
                self._sample(every)
            if self._percent is not None and self._percent <= 0:
                break
        return self.record

    # --- what happens in a step ---

    def _look(self) -> None:
        """Once a second, the governor and the policy look at the machine."""
        self._limit = self._scenario.governor.limit(self._celsius, self._load)
        self._load = 0.0
        reading = self._instruments.read(
            self._now, self._celsius, self._percent, is_throttled=self._limit < 1
        )
        before = self._orders
        self._orders = self._policy.on_reading(reading, is_answering=self._worker.is_answering)
        if self._now:
            self.record.transitions += before.lets_work is not self._orders.lets_work
        self.record.throttled_s += self._limit < 1

    def _ask(self) -> None:
        """Requests come, and those that the policy deferred are looked at again."""
        trace, now = self._scenario.trace, self._now
        self._scheduler.on_time(now)
        if self._is_starting:
            self._is_starting = False
            self._scheduler.on_worker_ready(MODEL, parallel=1)
        while self._num_asked < len(trace.asks) and trace.asks[self._num_asked].at <= now:
            self._held.append(trace.asks[self._num_asked])
            self._num_asked += 1
        if self._held:
            held, self._held = self._held, []
            for ask in held:
                self._pass(ask)
        while self._num_background < NUM_WAITING and trace.is_saturated and self._orders.is_admitted:
            self._request(Ask(now, RequestClass.BACKGROUND, BACKGROUND_TOKENS))

    def _pass(self, ask: Ask) -> None:
        """By the policy, or wait there: what is deferred is no request yet. No wait ends by a deadline."""
        if self._orders.is_admitted or not ask.request_class.yields:
            self._request(ask)
        else:
            self._held.append(ask)

    def _request(self, ask: Ask) -> None:
        id = str(len(self._asked))
        self._asked[id] = ask
        self._num_background += ask.request_class.yields
        request = Request(id, MODEL, Prompt(), Sampling(), request_class=ask.request_class)
        self._scheduler.on_request(request)

    def _step(self) -> None:
        """The worker works, and the machine warms."""
        work = self._worker.step(self._now, TICK_S, self._limit, self._orders)
        idle = self._scenario.platform.chip.idle
        joules = idle * TICK_S
        if work is not None:
            extra = (work.watts - idle) * work.seconds
            joules += extra
            self._load += work.threads * work.seconds
            self._account(work, extra)
        self._heat.step(joules / TICK_S)
        self.record.seconds += TICK_S
        self.record.joules += joules

    def _account(self, work: Work, joules: float) -> None:
        """`joules` are those above idle."""
        request = work.job.request
        self._instruments.ran(work.tokens, 1 - work.tokens / work.seconds / work.cold)
        self.record.tokens += work.tokens
        if request.yields:
            self.record.background += work.tokens
            self.record.joules_background += joules
        if work.job.left <= 0:
            self._done(work.job, self._now + work.seconds)

    def _done(self, job: Job, at: float) -> None:
        id = job.request.id
        ask = self._asked[id]
        if job.request.yields:
            self._num_background -= 1
        else:
            cold = self._scenario.platform.chip.tokens_per_s
            self.record.speeds.append(ask.tokens / (at - job.began) / cold)
            self.record.waits.append(job.began - ask.at)
        self._worker.end(id)
        self._scheduler.on_request_done(id)

    def _sample(self, seconds: float) -> None:
        tokens = self.record.tokens - self._sampled_tokens
        self._sampled_tokens = self.record.tokens
        line = self._scheduler.line(MODEL)
        self.record.samples.append(
            Sample(
                at=self._now,
                celsius=self._celsius,
                clock=self._limit,
                duty=self._orders.duty,
                tokens_per_s=tokens / seconds,
                queued=len(line.queue) + len(self._held),
                percent=self._percent,
            )
        )

    @property
    def _celsius(self) -> float:
        """Where the governor measures."""
        return self._heat.chassis if self._scenario.platform.feels_chassis else self._heat.die

    @property
    def _percent(self) -> float | None:
        """Of the battery; None on mains."""
        if not self._scenario.is_on_battery:
            return None
        return max(0.0, 100 * (1 - self.record.joules / 3600 / self._scenario.platform.battery))

    # --- effects ---

    def start(self, model: str) -> None:
        self._is_starting = True

    def stop(self, model: str, reason: Reason) -> None:
        raise AssertionError(f"{model} is stopped: {reason}")

    def dispatch(self, request: Request) -> None:
        self._worker.begin(request, self._asked[request.id].tokens, self._now)

    def cancel(self, request: Request) -> None:
        self._worker.end(request.id)

    def fail(self, request: Request, error: Error) -> None:
        raise AssertionError(f"{request.id} failed: {error.message}")

    def idle(self, model: str) -> None:
        """It stays loaded."""

    def trim(self, model: str) -> None:
        """Nothing is kept here for later requests."""
