"""What a process holds of a file that it has mapped."""

from pathlib import Path


def bytes_held(pid: int | str, file: Path) -> int:
    """In memory now, of all its mappings; `pid` may be "self"."""
    mappings = Path(f"/proc/{pid}/smaps").read_text().split(str(file))[1:]
    return sum(int(one.split("Rss:")[1].split()[0]) * 1024 for one in mappings)
