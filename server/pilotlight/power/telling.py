"""A reading in the words of people and JSON: each value with its unit, age, source and confidence, and why
the others are not known."""

from typing import Any

from pilotlight.power.finding import FIELDS
from pilotlight.power.reading import Reading, ThermalLevel
from pilotlight.registry.pressure import Level

UNITS = {
    "percent": "%",
    "watts": "W",
    "minutes_left": "min",
    "full_wh": "Wh",
    "celsius": "°C",
    "user_idle_s": "s",
    "gpu_celsius": "°C",
    "gpu_watts": "W",
}

NORMAL = "normal"


def told(reading: Reading, now: float) -> dict[str, dict[str, Any]]:
    """By field; `now` is of the reading's clock."""
    return {field: _told(reading, field, now) for field in FIELDS}


def _told(reading: Reading, field: str, now: float) -> dict[str, Any]:
    origin = reading.origins.get(field)
    if origin is None:
        return {"value": None, "reason": reading.unknown.get(field, "")}
    said = {"value": _plain(getattr(reading, field))}
    if field in UNITS:
        said["unit"] = UNITS[field]
    age = round(max(0.0, now - origin.at), 1)
    return said | {"age_s": age, "source": origin.source, "confidence": origin.confidence.value}


def _plain(value: Any) -> Any:
    if isinstance(value, Level):
        return value.name.lower() if value else NORMAL
    if isinstance(value, ThermalLevel):
        return value.name.lower()
    return round(value, 3) if isinstance(value, float) else value
