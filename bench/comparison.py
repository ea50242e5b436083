"""Two sides measured in turn, and the table of their medians, ratios and verdicts.

A ratio is the median of those of single rounds: a machine that drifts from round to round does so for both
sides. Knows neither servers nor loads: a side is whatever gives figures for a scenario.
"""

import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from load import Figures
from table import Target, number, render


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    name: str
    measure: Callable[[int, str], Awaitable[Figures]]
    """The figures of a scenario in the round of that number."""
    command: Sequence[str] = ()
    """What started it, if one command did."""


class Comparison:
    """Owns the figures of both sides, ours first, one entry per round."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets
        self._rounds: tuple[list[Figures], list[Figures]] = ([], [])

    async def run(self, sides: tuple[Side, Side], num_rounds: int, scenarios: Sequence[str]) -> None:
        """Both alive, one at work: scenario by scenario, who goes first by turns, so that drift hits both.

        May be called again, with sides that were started anew.
        """
        self._sides = sides
        done = len(self._rounds[0])
        for round_number in range(done + 1, done + num_rounds + 1):
            print(f"round {round_number} of {done + num_rounds}", file=sys.stderr)
            await self._round(round_number, scenarios, starts=round_number % 2)

    async def _round(self, number: int, scenarios: Sequence[str], starts: int) -> None:
        found: tuple[Figures, Figures] = ({}, {})
        for scenario in scenarios:
            for side in (starts, 1 - starts):
                found[side].update(await self._sides[side].measure(number, scenario))
        for rounds, figures in zip(self._rounds, found, strict=True):
            rounds.append(figures)

    def table(self) -> str:
        ours, theirs = self._sides
        rows = [["figure", ours.name, theirs.name, "ratio", "by round", "target", ""]]
        return render(rows + [self._row(figure) for figure in self._figures()])

    def report(self) -> dict[str, object]:
        """All that was measured, for --json."""
        names = [side.name for side in self._sides]
        return {
            "commands": {side.name: side.command for side in self._sides},
            "rounds": dict(zip(names, self._rounds, strict=True)),
            "medians": {
                figure: dict(zip(names, self._medians(figure), strict=True)) for figure in self._figures()
            },
            "ratios": {figure: self._ratio(figure) for figure in self._figures()},
            "verdicts": {
                figure: self._verdict(figure) for figure in self._figures() if figure in self._targets
            },
        }

    def _figures(self) -> list[str]:
        """Those that every round of both sides has."""
        every = [*self._rounds[0], *self._rounds[1]]
        return [figure for figure in every[0] if all(figure in figures for figures in every)]

    def _medians(self, figure: str) -> tuple[float, float]:
        ours, theirs = (statistics.median(round_[figure] for round_ in side) for side in self._rounds)
        return ours, theirs

    def _ratio(self, figure: str) -> float | None:
        ratios = self._ratios(figure)
        return statistics.median(ratios) if ratios else None

    def _ratios(self, figure: str) -> list[float]:
        """Of each round."""
        pairs = [(ours[figure], theirs[figure]) for ours, theirs in zip(*self._rounds, strict=True)]
        return [ours / theirs for ours, theirs in pairs if theirs]

    def _verdict(self, figure: str) -> str:
        target = self._targets.get(figure)
        value = self._medians(figure)[0] if target and target.is_own else self._ratio(figure)
        return target.verdict(value) if target and value is not None else ""

    def _row(self, figure: str) -> list[str]:
        ours, theirs = self._medians(figure)
        ratio = self._ratio(figure)
        return [
            figure,
            number(ours),
            number(theirs),
            "-" if ratio is None else f"{ratio:.2f}",
            self._spread(figure),
            str(self._targets.get(figure, "")),
            self._verdict(figure),
        ]

    def _spread(self, figure: str) -> str:
        """Lowest and highest ratio of a single round: how far to trust the median."""
        ratios = self._ratios(figure)
        return f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else "-"
