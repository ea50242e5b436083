"""Simulated machines over time, drawn by matplotlib, which comes with the `plot` extra.

A column per machine, a line per policy; from the top: temperature, the governor's limit on the clock,
tokens per second, requests that wait, and the battery if it is used.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotlight.errors import Error
from pilotlight.simulate.experiment import Run
from pilotlight.simulate.record import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = (".svg", ".png", ".pdf")

Value = Callable[[Sample], float | None]

PANELS: dict[str, Value] = {
    "temperature, °C": lambda sample: sample.celsius,
    "clock limit": lambda sample: sample.clock,
    "tokens/s": lambda sample: sample.tokens_per_s,
    "waiting": lambda sample: float(sample.queued),
    "battery, %": lambda sample: sample.percent,
}


def drawing(file: Path) -> Callable[[Sequence[Run]], None]:
    """What draws runs into the file. Raises `Error` if it is of no kind that can be drawn, or matplotlib is
    missing."""
    if file.suffix not in KINDS:
        raise Error(f"{file}: a plot is drawn into a file that ends in {', '.join(KINDS)}")
    if find_spec("matplotlib") is None:
        raise Error("plots need matplotlib: pip install 'pilotlight[plot]'")

    def draw(runs: Sequence[Run]) -> None:
        try:
            _figure(runs).savefig(file)
        except OSError as exc:
            raise Error(f"{file} cannot be written: {exc.strerror}") from exc

    return draw


def _figure(runs: Sequence[Run]) -> Any:
    from matplotlib.figure import Figure

    machines = list(dict.fromkeys((run.platform.name, run.machine) for run in runs))
    panels = [
        name for name, value in PANELS.items() if any(value(s) is not None for s in runs[0].record.samples)
    ]
    figure = Figure(figsize=(6 * len(machines), 2 * len(panels) + 1), layout="constrained")
    figure.suptitle("simulated, not measured")
    axes = figure.subplots(len(panels), len(machines), sharex="col", squeeze=False)
    for column, machine in enumerate(machines):
        shown = [run for run in runs if (run.platform.name, run.machine) == machine]
        for row, name in enumerate(panels):
            _panel(axes[row][column], shown, PANELS[name])
            axes[row][0].set_ylabel(name)
        number = f", machine {machine[1]}" if machine[1] else ""
        axes[0][column].set_title(shown[0].platform.title + number)
        axes[0][column].axhline(shown[0].platform.trip.celsius, linestyle=":", color="black")
        axes[-1][column].set_xlabel("hours")
    axes[0][0].legend(loc="lower right")
    return figure


def _panel(axes: "Axes", runs: Sequence[Run], value: Value) -> None:
    for run in runs:
        samples = run.record.samples
        hours = [sample.at / 3600 for sample in samples]
        values = [value(sample) or 0.0 for sample in samples]
        axes.plot(hours, values, label=run.policy, linewidth=0.8)
