"""The last reading for Prometheus. Scraping looks at nothing: how old the reading is is one of the gauges."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pilotlight.power.reading import Reading, Supply

GAUGES = {
    "percent": ("pilotlight_battery_percent", "Charge of the machine's batteries together."),
    "watts": (
        "pilotlight_power_watts",
        "What the machine draws, while a battery empties or a board measures it.",
    ),
    "is_saving": ("pilotlight_power_saving", "1: the user wants power saved."),
    "celsius": ("pilotlight_temperature_celsius", "Of the hottest sensor that counts."),
    "headroom": ("pilotlight_thermal_headroom", "Android's scale: at 1 the system slows down."),
    "forecast": ("pilotlight_thermal_headroom_forecast", "The same in 30 seconds, if it goes on like this."),
    "thermal": ("pilotlight_thermal_level", "0 nominal, 1 fair, 2 serious, 3 critical."),
    "is_throttled": ("pilotlight_throttled", "1: the system slows processors down because of heat."),
    "slowdown": ("pilotlight_slowdown_ratio", "How much slower answers come than when the machine was cold."),
    "gpu_celsius": ("pilotlight_gpu_temperature_celsius", "Of the hottest GPU that models are on."),
    "gpu_watts": ("pilotlight_gpu_power_watts", "What these GPUs draw together."),
    "load": ("pilotlight_other_load_ratio", "Part of the processors that other programs use."),
}
"""Metrics by field; one of which nothing is known has no value."""


class Gauges(Collector):
    """`last` gives the last reading, `now` the time on its clock."""

    def __init__(self, last: Callable[[], Reading], now: Callable[[], float]) -> None:
        self._last = last
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        reading = self._last()
        for field, (name, meaning) in GAUGES.items():
            value = getattr(reading, field)
            family = GaugeMetricFamily(name, meaning)
            if value is not None:
                family.add_metric([], float(value))
            yield family
        yield self._supply(reading)
        age = GaugeMetricFamily("pilotlight_reading_age_seconds", "Since the machine was last looked at.")
        if reading.origins:
            age.add_metric([], max(0.0, self._now() - reading.at))
        yield age

    def _supply(self, reading: Reading) -> GaugeMetricFamily:
        family = GaugeMetricFamily("pilotlight_power_supply", "1: power comes from here.", labels=["supply"])
        for supply in Supply if reading.supply is not None else ():
            family.add_metric([supply.value], float(supply is reading.supply))
        return family
