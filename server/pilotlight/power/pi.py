"""Raspberry Pi: whether it is one, whether the voltage is too low, and what its firmware does about heat.

Under-voltage is a supply that gives too little, however cool the chip is. The kernel tells it as an alarm of
the hwmon chip rpi_volt; an older driver has all of the firmware's bits in a file `get_throttled`, which is
read only where the alarm is missing, because reading it makes newer kernels write a warning."""

from collections.abc import Iterator, Sequence

from pilotlight.power.files import Files
from pilotlight.power.finding import Finding, Known
from pilotlight.power.reading import Supply

BOARD = "sys/firmware/devicetree/base/model"

PLATFORM = "sys/devices/platform"

UNDER_VOLTAGE = 1 << 0
THROTTLED = 1 << 2
SOFT_LIMIT = 1 << 3
"""Bits of `vcgencmd get_throttled` that are about now; those from 16 on are about the time since the
start."""


def is_one(files: Files, chips: Sequence[tuple[str, str]]) -> bool:
    """This machine is a Raspberry Pi. Containers do not see what board they are on, but its devices."""
    is_named = (files.text(BOARD) or "").startswith("Raspberry Pi")
    return is_named or any(name == "rpi_volt" for name, _ in chips) or any(_firmwares(files))


def read(files: Files, chips: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """A supply that is too weak, and whether it is throttled; nothing on other machines. `chips` are those of
    `zones.chips`."""
    for name, folder in chips:
        alarm = files.number(f"{folder}/in0_lcrit_alarm") if name == "rpi_volt" else None
        if alarm is not None:
            if alarm == 1:
                yield Known("supply", Supply.WEAK, "rpi_volt")
            return
    bits = _bits(files)
    if bits is not None:
        is_weak = bool(bits & UNDER_VOLTAGE)
        # Throttled because of the voltage looks the same as because of heat; the soft limit is only about
        # heat.
        heat = SOFT_LIMIT if is_weak else SOFT_LIMIT | THROTTLED
        if is_weak:
            yield Known("supply", Supply.WEAK, "get_throttled")
        yield Known("is_throttled", bool(bits & heat), "get_throttled")


def _bits(files: Files) -> int | None:
    for firmware in _firmwares(files):
        text = files.text(f"{firmware}/get_throttled")
        if text is not None and len(text) <= 10:
            try:
                return int(text, 16)
            except ValueError:
                return None
    return None


def _firmwares(files: Files) -> Iterator[str]:
    """The folders of the devices by which one asks it."""
    for soc in files.names(PLATFORM, "soc"):
        for device in files.names(f"{PLATFORM}/{soc}", "soc"):
            if device.endswith(":firmware"):
                yield f"{PLATFORM}/{soc}/{device}"
