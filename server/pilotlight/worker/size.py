"""How much memory a process holds, split into what is its own and what are pages of files."""

from pathlib import Path

import psutil

from pilotlight.core import Size


def size_of(pid: int) -> Size | None:
    """The process's bytes; None if it is gone or the system does not tell."""
    try:
        return in_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
    except FileNotFoundError:
        return _elsewhere(pid)
    except (OSError, KeyError, IndexError, ValueError):
        return None


def in_rollup(text: str) -> Size:
    """What Linux says of all that a process has mapped. Its own is also what is out on swap: it comes back.

    Raises `KeyError`, `IndexError` or `ValueError` for a text that does not say it.
    """
    facts = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    # "Swap" has pages of files in a tmpfs, too.
    resident, anonymous, swapped = (int(facts[key][0]) * 1024 for key in ("Rss", "Anonymous", "SwapPss"))
    return Size(anonymous + swapped, resident - anonymous)


def _elsewhere(pid: int) -> Size | None:
    """macOS and Windows: what would be free if the process ended, and the rest of what is resident."""
    try:
        found = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return None
    return Size(found.uss, max(0, found.rss - found.uss))
