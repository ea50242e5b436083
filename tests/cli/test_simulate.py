"""`pilotlight simulate`: tables, figures and plots of machines that do not exist."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

SHORT = ("simulate", "--hours", "0.2", "--platform", "pi5")


def test_the_table_says_first_that_nothing_was_measured(run: Run) -> None:
    """Then a row for each policy."""
    result = run(*SHORT, "--policy", "race", "--policy", "pilotlight")
    assert result.returncode == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    assert first == "Simulated, not measured: no figure is one of a device."
    rows = [line.split()[:3] for line in rest if line.strip().startswith("pi5")]
    assert rows == [["pi5", "step-wise", "race"], ["pi5", "step-wise", "pilotlight"]]


def test_figures_of_several_machines_are_told_as_json(run: Run) -> None:
    """Each says that it is simulated; the same seed gives the same."""
    arguments = (*SHORT, "--policy", "pilotlight", "--vary", "30", "--machines", "2", "--seed", "7", "--json")
    result = run(*arguments)
    found = json.loads(result.stdout)
    assert [(one["simulated"], one["machine"], one["policy"]) for one in found] == [
        (True, 0, "pilotlight"),
        (True, 1, "pilotlight"),
    ]
    assert found[0]["watts"] != found[1]["watts"]
    assert run(*arguments).stdout == result.stdout


def test_of_several_machines_there_are_the_mean_and_the_worst(run: Run) -> None:
    """Under each governor; of twenty and more also the worst in twenty."""
    both = ("--governor", "step-wise", "--governor", "cliff")
    result = run(*SHORT, *both, "--policy", "race", "--vary", "30", "--machines", "2")
    rows = [line.split()[1:4] for line in result.stdout.splitlines() if line.strip().startswith("pi5")]
    assert rows == [[name, "race", which] for name in both[1::2] for which in ("mean", "worst")]
    many = run(*SHORT, "--policy", "none", "--vary", "30", "--machines", "20")
    assert "worst 5%" in many.stdout


def test_requests_are_replayed_from_a_file(run: Run, tmp_path: Path) -> None:
    """Nothing else runs."""
    (tmp_path / "requests.jsonl").write_text('{"at": 10, "class": "background", "tokens": 100}\n')
    arguments = (*SHORT, "--policy", "race", "--json", "--requests", str(tmp_path / "requests.jsonl"))
    (found,) = json.loads(run(*arguments).stdout)
    assert found["tokens"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("--requests", "missing.jsonl"), 2, "missing.jsonl cannot be read"),
        (("--platform", "pi5", "--battery"), 1, "pi5 has no battery; fan, fanless and phone have one"),
        (("--plot", "out.gif"), 1, "out.gif: a plot is drawn into a file that ends in .svg, .png, .pdf"),
        (("--hours", "0"), 2, "0.0 is not in the range"),
        (("--governor", "none"), 2, "'none' is not one of"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_simulated(
    run: Run, arguments: tuple[str, ...], code: int, why: str
) -> None:
    """In one line."""
    result = run("simulate", "--hours", "1000", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert why in result.stderr


def test_a_battery_runs_until_it_is_empty(run: Run) -> None:
    """Without background work longer than with it."""
    result = run(
        "simulate", "--platform", "fan", "--battery", "--policy", "race", "--policy", "none", "--json"
    )
    race, none = json.loads(result.stdout)
    assert none["hours"] > 3 * race["hours"] > 3
    assert none["background_joules"] == 0


def test_a_plot_is_drawn(run: Run, tmp_path: Path) -> None:
    """As SVG, by matplotlib; it says that nothing was measured."""
    pytest.importorskip("matplotlib")
    result = run(*SHORT, "--policy", "race", "--plot", str(tmp_path / "out.svg"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")
    assert run(*SHORT, "--policy", "race", "--plot", str(tmp_path / "no" / "out.svg")).returncode == 1


def test_what_is_impossible_is_no_fault_of_a_policy(run: Run) -> None:
    """Of machines that vary it is told how many could keep most of racing's work, and did."""
    result = run(
        *("simulate", "--hours", "0.2", "--platform", "phone", "--vary", "30", "--machines", "8"),
        *("--policy", "race", "--policy", "none", "--policy", "pilotlight"),
    )
    verdicts = [line for line in result.stdout.splitlines() if line.startswith("phone cliff")]
    first, second = verdicts
    assert re.fullmatch(
        r"phone cliff pilotlight: 60% of race's background work is done on \d of the \d machines \(of 8\)"
        r" where it is possible",
        first,
    )
    assert second == "phone cliff pilotlight: 2 have no room for any beside answers at cold speed"
