"""What a probe found out, value by value, and how a `Reading` is put together from it.

Pure. Several probes may speak of the same field: the first one that knows it is believed, except where the
worst counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pilotlight.power.headroom import WARM
from pilotlight.power.reading import Confidence, Origin, Reading, Supply, ThermalLevel

UNTOLD = ("at", "minute", "gpu_pids", "origins", "unknown")

FIELDS = tuple(name for name in Reading.__struct_fields__ if name not in UNTOLD)
"""What can be found out; in the order in which people are told."""

WORST = frozenset({"supply", "thermal", "is_throttled", "memory"})
"""Fields of which the worst value counts, whoever says it."""


class Known(Struct, frozen=True):
    """A value of a field of `Reading`, and where it comes from."""

    field: str
    value: Any
    source: str
    confidence: Confidence = Confidence.MEASURED


class Missing(Struct, frozen=True):
    """A field that this probe would know, and why it does not."""

    field: str
    reason: str


Finding = Known | Missing

NOTHING = "nothing here measures it"


@dataclass(slots=True)
class _Sheet:
    known: dict[str, Known] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        if isinstance(finding, Missing):
            self.missing.setdefault(finding.field, finding.reason)
            return
        before = self.known.get(finding.field)
        if before is None or (finding.field in WORST and _weight(finding) > _weight(before)):
            self.known[finding.field] = finding


def _weight(finding: Known) -> tuple[int, int]:
    """How bad it is; of what is as bad, what is best known."""
    value = finding.value
    badness = list(Supply).index(value) if isinstance(value, Supply) else int(value)
    return badness, -list(Confidence).index(finding.confidence)


def assemble(findings: Iterable[Finding], at: float, minute: int | None = None) -> Reading:
    """The reading of this moment; what nobody spoke of is not measured here."""
    sheet = _Sheet()
    for finding in findings:
        sheet.add(finding)
    _count_throttling(sheet)
    known = sheet.known
    reasons = {name: sheet.missing.get(name, NOTHING) for name in FIELDS if name not in known}
    values = {name: one.value for name, one in known.items()}
    origins = {name: Origin(one.source, at, one.confidence) for name, one in known.items()}
    return replace(Reading(at=at, minute=minute, origins=origins, unknown=reasons), **values)


def _count_throttling(sheet: _Sheet) -> None:
    """A system that slows processors down because of heat is hot, whatever its thermometers say; but where
    they are far from it, it is not because of heat: with turbo switched off power-profiles-daemon says so for
    ever."""
    throttled, headroom = sheet.known.get("is_throttled"), sheet.known.get("headroom")
    is_cool = headroom is not None and headroom.value < WARM
    if throttled is not None and throttled.value and not is_cool:
        sheet.add(Known("thermal", ThermalLevel.SERIOUS, throttled.source, Confidence.DERIVED))
