"""What is known of the machine right now: one typed snapshot, in which anything may be unknown.

Pure values. Whoever decides something from them treats what is None, stale or nonsense as "fine".
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum

from msgspec import Struct, field

from pilotlight.registry.pressure import Level as MemoryLevel


class Supply(StrEnum):
    """Where the machine's power comes from."""

    AC = "ac"
    WEAK = "ac-weak"
    """A charger that gives less than is used: the battery empties though it is plugged in, or the voltage
    sinks."""
    BATTERY = "battery"


class ThermalLevel(IntEnum):
    """How hot it is, in the words of macOS and Android; the bands of `headroom` are in `power.headroom`."""

    NOMINAL = 0
    FAIR = 1
    SERIOUS = 2
    """The system slows down, or is about to."""
    CRITICAL = 3


class Confidence(StrEnum):
    """How far a value can be trusted."""

    MEASURED = "measured"
    DERIVED = "derived"
    """Computed from measured ones."""
    GUESSED = "guessed"


class Origin(Struct, frozen=True):
    """Where a value comes from: a file, a call or a counter; `at` is when it was read, like `Reading.at`."""

    source: str
    at: float
    confidence: Confidence = Confidence.MEASURED


class Reading(Struct, frozen=True):
    """A snapshot; None is "unknown", which never restricts anything."""

    at: float = 0.0
    """Seconds of a clock that never goes back."""
    minute: int | None = None
    """Of the local day, 0 to 1439."""
    supply: Supply | None = None
    percent: float | None = None
    """Charge of all the machine's batteries together, 0 to 100."""
    watts: float | None = None
    """What the whole machine draws: from its batteries, known only while they empty, or by a board's own
    meter."""
    minutes_left: float | None = None
    """Until they are empty."""
    full_wh: float | None = None
    """Watt-hours that they hold together when full."""
    is_saving: bool | None = None
    """The user wants power saved: low power mode, energy saver, the power-saver profile."""
    celsius: float | None = None
    """Of the hottest sensor that counts."""
    headroom: float | None = None
    """Android's scale: 0 is 30 degrees below the temperature at which the system throttles, 1 is there."""
    forecast: float | None = None
    """Headroom in 30 s, if it goes on like this."""
    thermal: ThermalLevel | None = None
    """The worst of what the system says, of headroom, of throttle counters and of our own slowdown."""
    is_throttled: bool | None = None
    """The system slows processors down right now because of heat."""
    slowdown: float | None = None
    """How much slower we generate than this machine did when cold, 0 to 1."""
    memory: MemoryLevel | None = None
    user_idle_s: float | None = None
    """Since the user last touched keyboard or mouse."""
    load: float | None = None
    """Part of the processors that other programs use, 0 to 1."""
    gpu_celsius: float | None = None
    """Of the hottest GPU that models are on."""
    gpu_watts: float | None = None
    """What these GPUs draw together."""
    gpu_pids: tuple[int, ...] | None = None
    """Our processes that are on them."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Of the values that are known, by field."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why the others are not, by field."""

    def confidence(self, name: str) -> Confidence:
        """In the value of this field; who gives a value without its origin has measured it."""
        origin = self.origins.get(name)
        return Confidence.MEASURED if origin is None else origin.confidence
