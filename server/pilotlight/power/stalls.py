"""Linux: how short memory is, by how much of the last ten seconds tasks have waited for it (PSI).

The levels are those of `registry.pressure_linux`, which the kernel wakes; this is the same measure read
like a gauge, and believed no sooner."""

import math
from collections.abc import Iterator

from pilotlight.power.files import Files, number
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.registry.pressure import Level
from pilotlight.registry.pressure_linux import PLENTY, TRIGGERS

STALLS = "proc/pressure/memory"


def read(files: Files) -> Iterator[Finding]:
    """The level of the last ten seconds."""
    lines = (files.text(STALLS) or "").splitlines()
    stalls = {line.split(" ")[0]: _average(line) for line in lines}
    level, is_known = Level.NONE, False
    for one, trigger in TRIGGERS.items():
        who, stall, window = trigger.split()
        part = stalls.get(who)
        if part is not None:
            is_known = True
            level = max(level, one) if part >= 100 * int(stall) / int(window) else level
    if level and _free_share(files) > PLENTY:
        level = Level.NONE
    if is_known:
        yield Known("memory", level, "psi")
    else:
        yield Missing("memory", f"there is no {STALLS}")


def _free_share(files: Files) -> float:
    """What `registry.memory` calls so, of a file that may hold anything."""
    lines = [line.split() for line in (files.text("proc/meminfo") or "").splitlines()]
    kib = {words[0]: number(words[1]) for words in lines if len(words) > 1}
    total, free = kib.get("MemTotal:"), kib.get("MemFree:")
    return free / total if total and free and 0 < free <= total else 0.0


def _average(line: str) -> float | None:
    """Percent, of `some avg10=1.53 avg60=...`."""
    for word in line.split()[1:2]:
        name, _, value = word.partition("=")
        try:
            part = float(value[:12])
        except ValueError:
            return None
        return part if name == "avg10" and math.isfinite(part) and 0 <= part <= 100 else None
    return None
