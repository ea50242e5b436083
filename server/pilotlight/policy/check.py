"""What rules would do with a machine that somebody describes: for `pilotlight policy check`.

Pure: values in, values out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from pilotlight.errors import ConfigError
from pilotlight.policy.rules import Rule
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level as MemoryLevel
from pilotlight.sources import near


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("must be a number of at most 308 digits") from error


def _yes(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _minute(value: Any) -> int:
    hour, _, minute = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not (hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60):
        raise ValueError("must be a time of the day, as in '22:30'")
    return 60 * int(hour) + int(minute)


def _word(words: Mapping[str, Any]) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return words[value]

    return parse


FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "supply": _word({one.value: one for one in Supply}),
    "is_saving": _yes,
    "is_throttled": _yes,
    "thermal": _word({one.name.lower(): one for one in ThermalLevel}),
    "memory": _word({"normal" if not one else one.name.lower(): one for one in MemoryLevel}),
    "minute": _minute,
    **dict.fromkeys(
        (
            "percent",
            "watts",
            "minutes_left",
            "full_wh",
            "celsius",
            "headroom",
            "forecast",
            "slowdown",
            "user_idle_s",
            "load",
            "gpu_celsius",
            "gpu_watts",
        ),
        _number,
    ),
}


def read(document: Any, minute: int | None = None) -> Reading:
    """A reading out of JSON: `{"supply": "battery", "percent": 14}`, or what GET /admin/policy says.

    What is left out or null is unknown; what the daemon says has no time of day, which is `minute` then.
    Raises `ConfigError`.
    """
    fields = document.get("reading", document) if isinstance(document, dict) else None
    if not isinstance(fields, dict):
        raise ConfigError('the reading must be a JSON object, as in {"supply": "battery", "percent": 14}')
    known: dict[str, Any] = {} if fields is document else {"minute": minute}
    for name, given in fields.items():
        value = given.get("value") if isinstance(given, dict) else given
        if name not in FIELDS:
            raise ConfigError(f"the reading has an unknown field {name!r}{near(name, FIELDS)}")
        try:
            known[name] = None if value is None else FIELDS[name](value)
        except ValueError as error:
            raise ConfigError(f"the reading's {name} {error}, not {value!r}") from error
    return Reading(**known)


class Verdict(Struct, frozen=True):
    """Whether a rule holds, and its conditions: as written, if they are so, and what the reading says."""

    rule: str
    holds: bool
    conditions: tuple[tuple[str, bool, str], ...]


def verdicts(rules: Sequence[Rule], reading: Reading) -> list[Verdict]:
    """One per rule, with nothing known of what was before."""
    return [
        Verdict(
            rule.name,
            rule.begins(reading),
            tuple(
                (str(condition), condition.is_met(reading), _shown(getattr(reading, condition.about)))
                for condition in rule.when
            ),
        )
        for rule in rules
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, ThermalLevel | MemoryLevel):
        return value.name.lower()
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
