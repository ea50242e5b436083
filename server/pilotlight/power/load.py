"""Linux: which part of the processors other programs use, by /proc/stat less what we use ourselves.

Time that a hypervisor gives to other machines (steal) is theirs: it makes us slow as any program beside us
does.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from pilotlight.power.files import Files, number
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence

LONGEST_GAP_S = 10.0
FEWEST_TICKS = 10
"""Of all processors together; of fewer, a hundredth of a second each, nothing can be said."""

IDLE = (3, 4)
NUM_TIMES = 8
"""Of `cpu  user nice system idle iowait irq softirq steal`; guests are in user and nice already."""


class Load:
    """Compares with the last look. Our own processes are below another root, as `files` may be those of the
    machine around our container, where their numbers are others'."""

    def __init__(self, files: Files, own_root: Path = Path("/")) -> None:
        self._files = files
        self._own_files = Files(own_root)
        self._before: tuple[float, int, int, dict[int, int]] | None = None

    def read(self, now: float, pids: Collection[int]) -> Iterator[Finding]:
        """`pids` are our own processes. Nothing of the first look after a pause."""
        times = self._times()
        if times is None:
            yield Missing("load", "there is no proc/stat")
            return
        total, busy = times
        own = {pid: ticks for pid in pids if (ticks := self._ticks(pid)) is not None}
        before, self._before = self._before, (now, total, busy, own)
        if before is None or now - before[0] > LONGEST_GAP_S or total - before[1] < FEWEST_TICKS:
            yield Missing("load", "needs two samples")
            return
        # One that was not there at the last look has begun since then.
        ours = sum(max(0, ticks - before[3].get(pid, 0)) for pid, ticks in own.items())
        others = busy - before[2] - ours
        part = min(1.0, max(0.0, others / (total - before[1])))
        yield Known("load", part, "proc/stat", Confidence.DERIVED)

    def _times(self) -> tuple[int, int] | None:
        """Ticks of all processors since the start, and of these the busy ones."""
        words = (self._files.text("proc/stat") or "").split("\n", 1)[0].split()
        times = [number(word) for word in words[1 : NUM_TIMES + 1]]
        if words[:1] != ["cpu"] or len(times) < NUM_TIMES:
            return None
        counts = [time for time in times if time is not None and time >= 0]
        if len(counts) < NUM_TIMES:
            return None
        total = sum(counts)
        return total, total - sum(counts[index] for index in IDLE)

    def _ticks(self, pid: int) -> int | None:
        """Of user and kernel time. The name before them may hold anything, so it is counted from its end."""
        words = (self._own_files.text(f"proc/{pid}/stat") or "").rpartition(")")[2].split()
        user, system = (number(words[index]) if len(words) > index else None for index in (11, 12))
        return None if user is None or system is None else user + system
