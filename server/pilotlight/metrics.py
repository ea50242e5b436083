"""Counters, histograms and gauges for Prometheus, in a registry of their own.

Gauges are read from a snapshot at scrape time, so nothing ticks while nobody looks. Labels are bounded:
a model that is not in the catalog counts as `unknown`. Knows nothing of HTTP.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from pilotlight import __version__
from pilotlight.core import ClassStatus, Cost, MemoryStatus, ModelStatus, RequestClass, WorkerState

UNKNOWN: Final = "unknown"

_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Owns the registry; `status` and `memory` give what is when somebody scrapes."""

    def __init__(
        self, status: Callable[[], Sequence[ModelStatus]], memory: Callable[[], MemoryStatus]
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Snapshot(status, memory))
        self._meters: dict[tuple[str, str], ModelMeter] = {}
        self._requests = Counter(
            "pilotlight_requests",
            "HTTP requests by endpoint, model and outcome; 499: the client left first.",
            ("endpoint", "model", "status"),
            registry=self.registry,
        )
        self._tokens = Counter(
            "pilotlight_tokens",
            "Tokens of prompts, those of them reused from the cache, and tokens of answers.",
            ("model", "kind"),
            registry=self.registry,
        )
        self._pulls = Counter(
            "pilotlight_pulls", "Pulls of models by how they ended.", ("outcome",), registry=self.registry
        )
        self._batches = Gauge("pilotlight_batches", "Batches by state.", ("status",), registry=self.registry)
        self._batch_lines = Counter(
            "pilotlight_batch_lines", "Lines of batches answered.", ("outcome",), registry=self.registry
        )
        self._decisions = Counter(
            "pilotlight_policy_decisions",
            "Requests by class and what the policy did with them; a request may count for several actions.",
            ("request_class", "action"),
            registry=self.registry,
        )
        self._transitions = Counter(
            "pilotlight_policy_transitions",
            "Rules that began to hold, or ended.",
            ("rule", "to"),
            registry=self.registry,
        )
        self._first = Histogram(
            "pilotlight_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            ("model", "class"),
            registry=self.registry,
            buckets=_FIRST_TOKEN_S,
        )
        self._gap = Histogram(
            "pilotlight_inter_token_seconds",
            "Between two tokens of one sequence.",
            ("model", "class"),
            registry=self.registry,
            buckets=_GAP_S,
        )
        self._wait = Histogram(
            "pilotlight_queue_wait_seconds",
            "From the request's arrival to when its worker had it.",
            ("model", "class"),
            registry=self.registry,
            buckets=_FIRST_TOKEN_S,
        )

        self._duty = Gauge(
            "pilotlight_background_duty_ratio",
            "Part of the time that background work may run, for the heat it makes.",
            registry=self.registry,
        )
        self._rests = Counter(
            "pilotlight_background_rests",
            "How often background work began to rest for the heat it makes.",
            registry=self.registry,
        )
        self._held = Gauge(
            "pilotlight_policy_held_requests", "Requests that wait for the policy.", registry=self.registry
        )
        self._saves = Gauge(
            "pilotlight_power_saver_held",
            "1 while the system's power saver is held for background work.",
            registry=self.registry,
        )

    def show_policy(
        self, duty: Callable[[], float], held: Callable[[], int], saves: Callable[[], bool]
    ) -> None:
        """Ask these for the part of the time that background work may run, how many requests wait, and
        whether we hold the system's power saver."""
        self._duty.set_function(duty)
        self._held.set_function(held)
        self._saves.set_function(saves)

    def count_rest(self) -> None:
        """Background work rests for its heat from now on."""
        self._rests.inc()

    def count_request(self, endpoint: str, model: str, status: int) -> None:
        """One HTTP request ended. `endpoint` is a route's path, `model` one of the catalog or `UNKNOWN`."""
        self._requests.labels(endpoint, model, status).inc()

    def count_pull(self, outcome: str) -> None:
        """One pull ended: `done`, `failed`, or `stopped` because nobody followed it any more."""
        self._pulls.labels(outcome).inc()

    def count_batch_line(self, outcome: str) -> None:
        """One line of a batch was answered: `completed`, or `failed` with an error."""
        self._batch_lines.labels(outcome).inc()

    def show_batches(self, status: str, count: Callable[[], int]) -> None:
        """Ask how many batches have this status when somebody scrapes."""
        self._batches.labels(status).set_function(count)

    def count_decision(self, request_class: str, actions: Iterable[str]) -> None:
        """What the policy did with one request; `none` if it restricted nothing."""
        for action in tuple(actions) or ("none",):
            self._decisions.labels(request_class, action).inc()

    def count_transition(self, rule: str, begins: bool) -> None:
        """A rule of the policy begins to hold, or ends."""
        self._transitions.labels(rule, "begin" if begins else "end").inc()

    def meter(self, model: str, request_class: str) -> "ModelMeter":
        """The bound children of a model of the catalog and a class of requests."""
        if (meter := self._meters.get((model, request_class))) is None:
            meter = ModelMeter(model, request_class, self._tokens, (self._first, self._gap, self._wait))
            self._meters[model, request_class] = meter
        return meter

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class ModelMeter:
    """What one model's requests of a class observe, with labels bound once: observing costs a microsecond."""

    def __init__(
        self, model: str, request_class: str, tokens: Counter, times: tuple[Histogram, Histogram, Histogram]
    ) -> None:
        self._prompt, self._cached, self._completion = (
            tokens.labels(model, kind) for kind in ("prompt", "cached", "completion")
        )
        first, gap, wait = (histogram.labels(model, request_class) for histogram in times)
        self.observe_first_token: Callable[[float], None] = first.observe
        self.observe_gap: Callable[[float], None] = gap.observe
        self.observe_wait: Callable[[float], None] = wait.observe

    def count_tokens(self, prompt: int, cached: int, completion: int) -> None:
        self._prompt.inc(prompt)
        self._cached.inc(cached)
        self._completion.inc(completion)


class _Snapshot(Collector):
    """Gauges computed from the models' status when scraped."""

    def __init__(
        self, status: Callable[[], Sequence[ModelStatus]], memory: Callable[[], MemoryStatus]
    ) -> None:
        self._status = status
        self._memory = memory

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily]:
        models = self._status()
        resident = GaugeMetricFamily(
            "pilotlight_resident_bytes", "Memory the model's worker holds.", labels=["model"]
        )
        restarts = CounterMetricFamily(
            "pilotlight_worker_restarts", "Workers started again after one failed.", labels=["model"]
        )
        threads = GaugeMetricFamily(
            "pilotlight_threads", "Threads that compute an answer alone now; 0: not loaded.", labels=["model"]
        )
        for model in models:
            name = [model.model.name]
            threads.add_metric(name, model.threads)
            resident.add_metric(name, model.bytes_resident or 0)
            restarts.add_metric(name, model.restarts)
        yield from (resident, restarts, threads, _workers(models))
        yield from _classes(models)
        yield from _pauses(models)
        yield GaugeMetricFamily(
            "pilotlight_budget_bytes", "Memory that all workers together may hold.", self._memory().budget
        )
        yield from _residency(models)
        yield from _archive(models, self._memory().archived)
        yield InfoMetricFamily("pilotlight_build", "The running version.", value={"version": __version__})


def _classes(models: Sequence[ModelStatus]) -> Iterator[GaugeMetricFamily]:
    """What waits and what runs, of each class."""
    labels = ["model", "class"]
    queue = GaugeMetricFamily("pilotlight_queue_requests", "Requests waiting in the daemon.", labels=labels)
    active = GaugeMetricFamily("pilotlight_active_sequences", "Sequences running.", labels=labels)
    for model in models:
        for request_class in RequestClass:
            status = model.classes.get(request_class, ClassStatus(0, 0))
            queue.add_metric([model.model.name, request_class], status.queued)
            active.add_metric([model.model.name, request_class], status.active)
    yield from (queue, active)


def _pauses(models: Sequence[ModelStatus]) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """What is paused, and was."""
    paused = GaugeMetricFamily(
        "pilotlight_paused_sequences",
        "Sequences that are paused for interactive requests, heat or the policy.",
        labels=["model"],
    )
    pauses = CounterMetricFamily("pilotlight_pauses", "How often some were paused.", labels=["model"])
    paused_s = CounterMetricFamily("pilotlight_paused_seconds", "How long some were.", labels=["model"])
    for model in models:
        paused.add_metric([model.model.name], model.paused)
        pauses.add_metric([model.model.name], model.pauses)
        paused_s.add_metric([model.model.name], model.paused_s)
    yield from (paused, pauses, paused_s)
    low = GaugeMetricFamily(
        "pilotlight_low_priority",
        "1 while the model's worker gives way to other programs, as it only has background work.",
        labels=["model"],
    )
    for model in models:
        low.add_metric([model.model.name], model.priority != "normal")
    yield low


def _residency(models: Sequence[ModelStatus]) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """What loading and unloading came to."""
    charged = GaugeMetricFamily(
        "pilotlight_charged_bytes",
        "Of the budget: all the model's worker may come to hold.",
        labels=["model"],
    )
    costs = GaugeMetricFamily(
        "pilotlight_cost_bytes",
        "What the model's worker takes: estimated and measured right after its load, and at most.",
        labels=["model", "kind"],
    )
    loads = CounterMetricFamily("pilotlight_loads", "Loads that succeeded.", labels=["model"])
    load_s = CounterMetricFamily("pilotlight_load_seconds", "Time they took.", labels=["model"])
    evictions = CounterMetricFamily(
        "pilotlight_evictions", "Models unloaded, by reason.", labels=["model", "reason"]
    )
    for model in models:
        name = model.model.name
        charged.add_metric([name], model.bytes_charged)
        for kind, num_bytes in _costs(model.cost):
            costs.add_metric([name, kind], num_bytes)
        loads.add_metric([name], model.loads)
        load_s.add_metric([name], model.load_s)
        for reason, count in model.evictions.items():
            evictions.add_metric([name, reason], count)
    yield from (charged, costs, loads, load_s, evictions)


def _costs(cost: Cost | None) -> Iterator[tuple[str, int]]:
    """What is known of them."""
    if cost is not None:
        yield "estimated", cost.estimated.total
        yield "at_most", cost.at_most.total
        if cost.is_measured:
            yield "measured", cost.at_load.total


def _archive(
    models: Sequence[ModelStatus], num_bytes: int
) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """What became of the conversations of unloaded models."""
    counts = CounterMetricFamily(
        "pilotlight_conversations",
        "Conversations saved to disk when a model was unloaded, and restored from there.",
        labels=["model", "outcome"],
    )
    for model in models:
        for outcome, count in (("saved", model.saved), ("restored", model.restored)):
            counts.add_metric([model.model.name, outcome], count)
    yield counts
    yield GaugeMetricFamily("pilotlight_conversation_bytes", "What they take of the disk.", num_bytes)


def _workers(models: Sequence[ModelStatus]) -> GaugeMetricFamily:
    workers = GaugeMetricFamily("pilotlight_workers", "Models by their worker's state.", labels=["state"])
    counts = Tally(model.state for model in models)
    for state in WorkerState:
        workers.add_metric([state.value], counts[state])
    return workers
