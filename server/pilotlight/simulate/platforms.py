"""The machines: what is known of each, and what is assumed.

None is a particular product, and no figure that comes of them is one of a device. Each constant says where
it is from; "assumed" ones are chosen so that racing ends where the measurement named with them says.
"""

import random
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import astuple, replace

from pilotlight.simulate.body import Body
from pilotlight.simulate.chip import Chip, Saving, Setting
from pilotlight.simulate.governors import Cliff, Governor, PowerAllocator, StepWise, Trip


class GovernorName(StrEnum):
    """What throttles."""

    STEP_WISE = "step-wise"
    POWER_ALLOCATOR = "power-allocator"
    CLIFF = "cliff"


class Platform(Struct, frozen=True):
    """A machine: heat, chip, where its governor throttles, and its battery in Wh (0: none)."""

    name: str
    title: str
    body: Body
    chip: Chip
    trip: Trip
    num_cores: int
    eco: Setting
    """A lower clock, as the desktop's power-saver profile has; where there is none, fewer threads."""
    feels_chassis: bool
    """Governor and sensor are at the chassis; else in the die."""
    governor: GovernorName = GovernorName.STEP_WISE
    battery: float = 0.0

    def setting(self, saving: Saving) -> Setting:
        """What background work is run with."""
        if saving is Saving.THREADS:
            return self.chip.fewest_threads(self.num_cores)
        return self.eco if saving is Saving.CLOCK else Setting()

    def govern(self, name: GovernorName) -> Governor:
        """A governor of its own, which has seen nothing yet."""
        if name is GovernorName.CLIFF:
            return Cliff(self.trip)
        if name is GovernorName.POWER_ALLOCATOR:
            return self._power_allocator()
        return StepWise(self.trip)

    def _power_allocator(self) -> PowerAllocator:
        idle = self.chip.idle
        sustainable = (self.trip.celsius - self.body.air) / (self.body.outer + self.inner) - idle
        most = self.chip.watts(Setting()) - idle
        return PowerAllocator(self.trip, sustainable, most, lambda watts: self.chip.clock(idle + watts))

    @property
    def inner(self) -> float:
        """K/W from where governor and sensor are to the chassis."""
        return 0.0 if self.feels_chassis else self.body.inner

    @property
    def idles_at(self) -> float:
        """Degrees Celsius that governor and sensor feel when nothing runs."""
        return self.body.air + self.chip.idle * (self.body.outer + self.inner)

    def vary(self, part: float, seed: int) -> "Platform":
        """One like it, every constant of its heat and its chip off by up to `part`, independently.

        So is the room between the temperature it idles at and the trip, and not the trip itself: errors of
        both resistances, of idle power and of the air together would make machines that throttle while they
        idle.
        """
        dice = random.Random(f"{self.name} {seed}")

        def varied(value: float) -> float:
            return value * (1 + dice.uniform(-part, part))

        room = varied(self.trip.celsius - self.idles_at)
        body = Body(*(varied(value) for value in astuple(self.body)))
        chip = Chip(*(varied(value) for value in astuple(self.chip)))
        other = replace(self, body=body, chip=replace(chip, volts=min(chip.volts, 1.0)))
        return replace(other, trip=replace(self.trip, celsius=other.idles_at + room))


FAN_LAPTOP = Platform(
    name="fan",
    title="laptop with a fan",
    # 1.65 K/W in all: assumed, so that decoding flat out ends at the trip; a laptop whose GPU went from 55
    # to 70 degrees within 5.3 min at 34 W (arXiv 2603.23640) gives the chassis.
    body=Body(die=20, chassis=200, inner=0.65, outer=1.0),
    chip=Chip(tokens_per_s=11, knee=0.5, idle=5.3, cores=36, memory=4),
    trip=Trip(95, floor=0.3),
    num_cores=8,
    eco=Setting(clock=0.6),
    feels_chassis=False,
    battery=57,
)
"""An x86 laptop, 8B at 4 bits on its cores; 95 degrees is a usual passive trip."""

FANLESS_LAPTOP = Platform(
    name="fanless",
    title="laptop without a fan",
    # Assumed, so that racing settles at 0.5 to 0.6 of the cold rate after a quarter of an hour; a phone
    # that ran for 20 rounds kept 0.56 (arXiv 2603.23640), laptops of this kind throttle after 8 to 15 min.
    body=Body(die=10, chassis=520, inner=1.0, outer=2.6),
    chip=Chip(tokens_per_s=21, knee=0.85, idle=3, cores=17, memory=2),
    trip=Trip(48, floor=0.3),
    num_cores=8,
    eco=Setting(clock=0.6),
    feels_chassis=True,
    battery=53,
)
"""A thin one whose lid is the heat sink; it throttles by skin temperature."""

PI_5 = Platform(
    name="pi5",
    title="Raspberry Pi 5, bare",
    # Idles near 50 degrees at 2.7 W and 22 degrees of air: 10 K/W. Its mass times 0.8 J/gK: 36 J/K.
    body=Body(die=3, chassis=36, inner=2.0, outer=8.0),
    chip=Chip(tokens_per_s=10.4, knee=0.75, idle=2.7, cores=4.0, memory=0.5),
    # Firmware: the ARM clock goes down from 80 degrees on (raspberrypi.com, "frequency management and
    # thermal control").
    trip=Trip(80, floor=0.6),
    num_cores=4,
    eco=Setting(threads=0.75),
    feels_chassis=False,
)
"""1B at 4 bits on four cores. An unprivileged process cannot lower its clock, but use three of them."""

PHONE = Platform(
    name="phone",
    title="phone",
    # 110 J/K and 8 K/W in all (tau about 15 min); sustains 2 W (kernel, power_allocator.rst: 4-inch phone).
    # A die that heats within 6 to 9 s, and the trip, are assumed.
    body=Body(die=3, chassis=110, inner=2.0, outer=6.0),
    chip=Chip(tokens_per_s=10, knee=0.8, idle=0.8, cores=4.0, memory=0.7),
    trip=Trip(48, floor=0.4),
    num_cores=4,
    eco=Setting(clock=0.6),
    feels_chassis=False,
    governor=GovernorName.CLIFF,
    battery=19,
)
"""1B at 4 bits on its large cores, behind a governor that falls off a cliff."""

PLATFORMS = {one.name: one for one in (FAN_LAPTOP, FANLESS_LAPTOP, PI_5, PHONE)}
