"""Heat in two masses: the die, which power warms at once, and the chassis around it, which warms slowly.

`C1 dT1/dt = P - (T1 - T2) / R12` and `C2 dT2/dt = (T1 - T2) / R12 - (T2 - air) / R2a`. No radiation, no
leakage that grows with heat, and a fan is a smaller resistance.
"""

import math
from dataclasses import dataclass, field

from msgspec import Struct


class Body(Struct, frozen=True):
    """The constants; `die` and `chassis` are heat capacities in J/K, `inner` (die to chassis) and `outer`
    (chassis to air) resistances in K/W, `air` its temperature in degrees Celsius."""

    die: float
    chassis: float
    inner: float
    outer: float
    air: float = 22.0

    def decay(self, dt: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """What is left, after `dt` seconds, of the distance to where constant power leads: `exp(A dt)`."""
        a, b = -1 / (self.die * self.inner), 1 / (self.die * self.inner)
        c = 1 / (self.chassis * self.inner)
        d = -c - 1 / (self.chassis * self.outer)
        mean, half = (a + d) / 2, math.sqrt(((a - d) / 2) ** 2 + b * c)
        even = math.exp(mean * dt) * math.cosh(half * dt)
        odd = math.exp(mean * dt) * math.sinh(half * dt) / half
        return (even + odd * (a - mean), odd * b), (odd * c, even + odd * (d - mean))


@dataclass(slots=True)
class Heat:
    """The temperatures, in degrees Celsius; they begin where `watts` would have led in the end."""

    body: Body
    dt: float
    """Seconds per step."""
    watts: float
    die: float = field(init=False)
    chassis: float = field(init=False)
    _decay: tuple[tuple[float, float], tuple[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        self._decay = self.body.decay(self.dt)
        self.die, self.chassis = self._settled(self.watts)

    def step(self, watts: float) -> None:
        """Let `dt` seconds pass at this power. Exact for any `dt`."""
        die, chassis = self._settled(watts)
        above_die, above_chassis = self.die - die, self.chassis - chassis
        (a, b), (c, d) = self._decay
        self.die = die + a * above_die + b * above_chassis
        self.chassis = chassis + c * above_die + d * above_chassis

    def _settled(self, watts: float) -> tuple[float, float]:
        chassis = self.body.air + watts * self.body.outer
        return chassis + watts * self.body.inner, chassis
