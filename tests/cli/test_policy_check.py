"""`pilotlight policy check`: rules tried out without a daemon and without a machine."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

HALVES = """
[[rule]]
name = "morning"
when = { between = "00:00-12:00" }
batch = { admit = "defer" }
[[rule]]
name = "afternoon"
when = { between = "12:00-00:00" }
batch = { admit = "defer" }
"""

READING = '{"supply": "battery", "percent": 14, "thermal": "fair"}'

OWN = """
[[rule]]
name = "low battery"
when = { supply = "battery", battery_below = 10 }
interactive = { max_tokens = 99 }
"""


def test_it_shows_the_plan_and_why(run: Run, tmp_path: Path) -> None:
    """For each class, and for each rule the conditions that decide it."""
    (tmp_path / "rules.toml").write_text("")
    done = run("policy", "check", "rules.toml", "--reading", "-", stdin=READING)
    assert "interactive: model = small, reasoning = false, max_tokens = 256" in done.stdout
    assert "on battery at 14 %: background requests are refused" in done.stdout
    assert "holds: low battery\n  yes supply = 'battery' (it is battery)" in done.stdout
    assert "does not hold: critical heat\n  no  thermal = 'critical' (it is fair)" in done.stdout
    assert "no  memory = 'warn' (it is unknown)" in done.stdout


def test_a_rule_of_ones_own_takes_the_place_of_a_presets(run: Run, tmp_path: Path) -> None:
    """By its name; the other rules of the preset stay."""
    (tmp_path / "rules.toml").write_text(OWN)
    arguments = ("policy", "check", "rules.toml", "--reading", "-", "--class", "interactive", "--json")
    said = json.loads(run(*arguments, stdin=READING).stdout)
    action = {"max_tokens": "1024", "keep_alive": "300", "threads": "efficient"}
    assert said["classes"]["interactive"]["action"] == action
    assert [rule["holds"] for rule in said["rules"] if rule["rule"] == "low battery"] == [False]


def test_it_takes_what_the_daemon_says_of_its_machine(run: Run, tmp_path: Path) -> None:
    """The output of `pilotlight policy --json`, in a file."""
    (tmp_path / "rules.toml").write_text("")
    told = {
        "reading": {"supply": {"value": "battery", "age_s": 1}, "percent": {"value": None, "reason": "?"}}
    }
    (tmp_path / "reading.json").write_text(json.dumps(told))
    done = run("policy", "check", "rules.toml", "--reading", "reading.json", "--class", "batch")
    assert done.stdout.startswith("batch: admit = defer")


def test_what_the_daemon_says_is_of_now(run: Run, tmp_path: Path) -> None:
    """It tells no time of day; one that people write down is what they write."""
    (tmp_path / "rules.toml").write_text(HALVES)
    arguments = ("policy", "check", "rules.toml", "--reading", "-", "--json")
    for reading, num_holding in (({"reading": {}}, 1), ({}, 0), ({"minute": "13:00"}, 1)):
        rules = json.loads(run(*arguments, stdin=json.dumps(reading)).stdout)["rules"]
        assert sum(rule["holds"] for rule in rules if rule["rule"] in HALVES) == num_holding


def test_wrong_rules_and_readings_are_told(run: Run, tmp_path: Path) -> None:
    """With the line, or the field; exit code 2."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("\n[[rule]]\nname = 'x'\nwhen = { batery_below = 3 }\n")
    rules = run("policy", "check", "wrong.toml", "--reading", "-", stdin="{}")
    assert "unknown key rule[0].when.batery_below (line 4); did you mean 'battery_below'?" in rules.stderr
    wrong.write_text("")
    field = run("policy", "check", "wrong.toml", "--reading", "-", stdin='{"suply": "ac"}')
    value = run("policy", "check", "wrong.toml", "--reading", "-", stdin='{"percent": "low"}')
    assert "unknown field 'suply'; did you mean 'supply'?" in field.stderr
    assert "the reading's percent must be a number, not 'low'" in value.stderr
    assert (rules.returncode, field.returncode, value.returncode) == (2, 2, 2)


@pytest.mark.parametrize(
    ("reading", "told"),
    [
        ('{"reading": 5}', "the reading must be a JSON object"),
        ('{"reading": null}', "the reading must be a JSON object"),
        ('{"percent": 1%s}' % ("0" * 400), "percent must be a number of at most 308 digits"),
    ],
)
def test_what_is_no_reading_at_all_is_told(run: Run, tmp_path: Path, reading: str, told: str) -> None:
    """However strange it is."""
    (tmp_path / "rules.toml").write_text("")
    done = run("policy", "check", "rules.toml", "--reading", "-", stdin=reading)
    assert done.stderr.startswith("pilotlight: ")
    assert told in done.stderr
    assert done.returncode == 2
