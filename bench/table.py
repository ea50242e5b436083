"""Lines up rows of text for the terminal, and words a verdict on a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A limit that a figure has to keep."""

    limit: float
    is_floor: bool = False
    is_own: bool = False
    """Of our figure by itself, not of its ratio to another's."""

    def __str__(self) -> str:
        limit = f"{'>=' if self.is_floor else '<='} {self.limit:g}"
        return f"own {limit}" if self.is_own else limit

    def verdict(self, value: float) -> str:
        is_kept = value >= self.limit if self.is_floor else value <= self.limit
        return "ok" if is_kept else "MISS"


def render(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head; the first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = [_line(row, widths) for row in rows]
    return "\n".join([head, "-" * len(head), *body])


def against(figures: Mapping[str, float], targets: Mapping[str, Target]) -> str:
    """A line per figure, with its target and verdict if it has one."""
    rows = [["figure", "value", "target", ""]]
    for name, value in figures.items():
        target = targets.get(name)
        rows.append([name, number(value), str(target or ""), target.verdict(value) if target else ""])
    return render(rows)


def number(value: float) -> str:
    """Three significant digits, more for large values."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _line(row: Sequence[str], widths: list[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
