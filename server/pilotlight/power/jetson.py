"""Jetson: what the whole board draws, by the INA3221 at its input, and whether that is more than it may."""

from collections.abc import Iterator, Sequence

from pilotlight.power.files import Files
from pilotlight.power.finding import Finding, Known
from pilotlight.power.reading import Confidence, Supply

INPUTS = ("VDD_IN", "POM_5V_IN")
"""What the rail into the whole board is called, on Orin and Nano. (An AGX has several that add up.)"""

MILLI = 1e-3
MOST_VOLTS = 60.0
MOST_AMPERES = 30.0


def read(files: Files, chips: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Watts, and a supply that is overloaded; nothing on other machines. `chips` are those of
    `zones.chips`."""
    for name, folder in chips:
        if name in ("ina3221", "ina3221x"):
            for channel in (1, 2, 3):
                if files.text(f"{folder}/in{channel}_label") in INPUTS:
                    yield from _rail(files, folder, channel)


def _rail(files: Files, path: str, channel: int) -> Iterator[Finding]:
    source = f"ina3221 {files.text(f'{path}/in{channel}_label')}"
    volts = files.within(f"{path}/in{channel}_input", 0, MOST_VOLTS, MILLI)
    amperes = files.within(f"{path}/curr{channel}_input", 0, MOST_AMPERES, MILLI)
    if volts is not None and amperes is not None:
        yield Known("watts", volts * amperes, source, Confidence.DERIVED)
    if files.number(f"{path}/curr{channel}_crit_alarm") == 1:
        yield Known("supply", Supply.WEAK, source)
