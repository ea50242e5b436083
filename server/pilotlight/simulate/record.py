"""What a simulated machine did, and the figures made of it."""

from dataclasses import dataclass, field

from msgspec import Struct


class Sample(Struct, frozen=True):
    """A moment, for the plot."""

    at: float
    celsius: float
    clock: float
    """The governor's limit."""
    duty: float
    tokens_per_s: float
    """Generated since the sample before."""
    queued: int
    percent: float | None
    """Of the battery."""


@dataclass(slots=True)
class Record:
    """Sums over a run."""

    seconds: float = 0.0
    joules: float = 0.0
    joules_background: float = 0.0
    """While background work was generating, above idle."""
    throttled_s: float = 0.0
    tokens: float = 0.0
    background: float = 0.0
    """Tokens of background work among them."""
    transitions: int = 0
    """How often the policy stopped background work or let it go on."""
    speeds: list[float] = field(default_factory=list)
    """Of the interactive answers, as parts of the cold rate."""
    waits: list[float] = field(default_factory=list)
    """Seconds they waited for their turn."""
    samples: list[Sample] = field(default_factory=list)


class Figures(Struct, frozen=True):
    """A row of the table; None where nothing happened that it could be made of."""

    mean: float | None
    """Interactive rate, as a part of the cold one."""
    p5: float | None
    background_per_h: float
    """Tokens of background work."""
    joules_per_token: float | None
    watts: float
    throttled: float
    """Part of the time."""
    transitions_per_h: float
    hours: float
    tokens: float
    background_joules: float


def figures(record: Record) -> Figures:
    """Of a whole run."""
    hours = record.seconds / 3600
    speeds = sorted(record.speeds)
    return Figures(
        mean=sum(speeds) / len(speeds) if speeds else None,
        p5=speeds[int(0.05 * len(speeds))] if speeds else None,
        background_per_h=record.background / hours,
        joules_per_token=record.joules / record.tokens if record.tokens else None,
        watts=record.joules / record.seconds,
        throttled=record.throttled_s / record.seconds,
        transitions_per_h=record.transitions / hours,
        hours=hours,
        tokens=record.tokens,
        background_joules=record.joules_background,
    )
