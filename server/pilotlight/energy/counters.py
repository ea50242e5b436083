"""The joules so far, for Prometheus. Scraping looks at no meter."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from pilotlight.energy.ledger import Ledger


class Counters(Collector):
    """Of one `Ledger`. Joules of different methods count different things: they do not add up."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield self._by_model()
        yield self._by_app()
        yield self._unattributed()

    def _by_model(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            "pilotlight_energy_joules",
            "What answers took, by how that is known and whose energy is counted.",
            labels=["model", "phase", "method", "scope"],
        )
        for (model, method), counted in self._ledger.totals.models.items():
            scope = self._ledger.meters[method].scope
            family.add_metric([model, "prefill", method, scope], counted.prefill_joules)
            family.add_metric([model, "decode", method, scope], counted.decode_joules)
        return family

    def _by_app(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            "pilotlight_app_energy_joules",
            "The same by the program that asked.",
            labels=["app", "class", "method", "scope"],
        )
        for (app, request_class, method), counted in self._ledger.totals.apps.items():
            scope = self._ledger.meters[method].scope
            family.add_metric([app, request_class, method, scope], counted.joules)
        return family

    def _unattributed(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            "pilotlight_energy_unattributed_joules",
            "Metered while requests were in workers, and nobody's: they were paused, or had left.",
            labels=["method", "scope"],
        )
        for method, joules in self._ledger.unattributed.items():
            family.add_metric([method, self._ledger.meters[method].scope], joules)
        return family
