"""Linux: everything that can be found out, in one look."""

from collections.abc import Collection
from pathlib import Path

from pilotlight.power import jetson, pi, profile, stalls, supplies, zones
from pilotlight.power.desktop import Desktop
from pilotlight.power.files import Files, Remembered
from pilotlight.power.finding import Finding
from pilotlight.power.load import Load
from pilotlight.power.nvidia import Nvidia
from pilotlight.power.nvidia_calls import Library
from pilotlight.power.thermometers import Thermometers
from pilotlight.power.throttling import Throttling


class Linux:
    """The machine whose files are below `root`; remembers what has to be compared with the look before."""

    def __init__(self, root: Path = Path("/")) -> None:
        files = self._files = Files(root)
        self._chips = Remembered(lambda: zones.chips(files))
        self._thermometers = Thermometers(self._files)
        self._throttling = Throttling(self._files)
        self._load = Load(self._files)
        self._nvidia = Nvidia(files, Library())
        # The services are this machine's, whatever files are read.
        self._desktop = Desktop() if root == Path("/") else None

    def look(self, now: float, pids: Collection[int]) -> list[Finding]:
        """All findings; `now` in seconds of a clock that never goes back, `pids` our own processes. Blocks
        for as long as drivers take to answer: most of a millisecond, and tens of them where firmware is
        slow."""
        files, chips = self._files, self._chips.at(now)
        return [
            *pi.read(files, chips),
            *jetson.read(files, chips),
            *supplies.read(files),
            *(self._desktop.read(now) if self._desktop else ()),
            *profile.read(files),
            *self._thermometers.read(now),
            *self._throttling.read(now),
            *stalls.read(files),
            *self._load.read(now, pids),
            *self._nvidia.read(now, pids),
        ]
