"""What is done with background work: by our own controller, or, for contrast, as other programs do."""

from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from pilotlight.core import RequestClass
from pilotlight.policy.actions import Admit
from pilotlight.policy.decide import decide
from pilotlight.policy.facts import Facts
from pilotlight.policy.hysteresis import Hysteresis, InForce
from pilotlight.policy.rules import Rule
from pilotlight.policy.thermal import Thermal
from pilotlight.power.reading import Reading
from pilotlight.simulate.chip import Saving

BACKGROUND = Facts(RequestClass.BACKGROUND)
HYSTERESIS = Hysteresis()


class Orders(Struct, frozen=True):
    """To background work: the part of the time it may run (0: not at all), how, and whether new requests are
    admitted."""

    duty: float = 1.0
    saving: Saving = Saving.NONE
    is_admitted: bool = True

    @property
    def lets_work(self) -> bool:
        """It neither stops nor waits."""
        return self.is_admitted and self.duty > 0


class Policy(Protocol):
    """Something that looks at the machine once a second."""

    @property
    def saving(self) -> Saving:
        """How background work is run, when it runs."""

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        """What holds until the next reading."""


class Always(Struct, frozen=True):
    """The same orders whatever happens."""

    orders: Orders

    @property
    def saving(self) -> Saving:
        return self.orders.saving

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        return self.orders


@dataclass(slots=True)
class OnOff:
    """Stops at a temperature and goes on when it has cooled a little, as TThrottle and many scripts do."""

    stop: float = 0.95
    go: float = 0.90
    saving: Saving = Saving.NONE
    _duty: float = 1.0

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        assert reading.headroom is not None
        if reading.headroom >= self.stop:
            self._duty = 0.0
        elif reading.headroom < self.go:
            self._duty = 1.0
        return Orders(self._duty)


@dataclass(slots=True)
class Pilotlight:
    """The rules that Pilotlight has, and its controller, which may be without a thermometer."""

    rules: tuple[Rule, ...]
    saving: Saving = Saving.NONE
    has_thermometer: bool = True
    _in_force: InForce = field(default_factory=InForce)
    _thermal: Thermal = field(default_factory=Thermal)

    def on_reading(self, reading: Reading, *, is_answering: bool) -> Orders:
        if not self.has_thermometer:
            reading = replace(
                reading, celsius=None, headroom=None, forecast=None, thermal=None, is_throttled=None
            )
        duty = self._thermal.on_reading(reading, is_answering=is_answering)
        self._in_force = self._in_force.step(self.rules, reading, HYSTERESIS)
        decision = decide(reading, self.rules, BACKGROUND, self._in_force)
        is_admitted = decision.actions.admit is Admit.NOW
        return Orders(duty if is_admitted else 0.0, saving=self.saving, is_admitted=is_admitted)


def policy(name: str, rules: tuple[Rule, ...] = ()) -> Policy:
    """A fresh one, which has seen nothing yet; `rules` are for Pilotlight's own."""
    match name:
        case "none":
            return Always(Orders(duty=0.0))
        case "race":
            return Always(Orders())
        case "duty":
            return Always(Orders(duty=0.5))
        case "hysteresis":
            return OnOff()
        case "slowdown":
            return Pilotlight(rules, has_thermometer=False)
        case "pilotlight":
            return Pilotlight(rules)
        case "threads":
            return Pilotlight(rules, Saving.THREADS)
        case "eco":
            return Pilotlight(rules, Saving.CLOCK)
    raise AssertionError(f"there is no policy {name!r}")
