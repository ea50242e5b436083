"""The documents are true: settings, routes, metrics, and the names in the architecture page."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pilotlight import config, sources
from pilotlight.api.app import ROUTES
from pilotlight.cli import machine
from pilotlight.core import MemoryStatus, RequestClass
from pilotlight.energy.counters import Counters
from pilotlight.energy.ledger import Ledger
from pilotlight.metrics import Metrics
from pilotlight.policy.settings import RuleSettings
from pilotlight.power.gauges import Gauges
from pilotlight.power.reading import Reading
from pilotlight.registry.formats import MARKS
from pilotlight.runtimes.capabilities import ALL_SAMPLING, CAPABILITIES
from pilotlight.settings import (
    ConcurrencySettings,
    DefaultsSettings,
    Document,
    MemorySettings,
    ModelSettings,
    PowerSettings,
    SamplingSettings,
    ServerSettings,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "models.toml").read_text()
ARCHITECTURE = ROOT / "server" / "pilotlight" / "DESIGN.md"

# Settings whose default depends on the machine or that have none; any value may stand in the reference.
EXAMPLES = {
    "server.state_dir",
    "server.store_dir",
    "catalog.model_dirs",
    "power.root",
    *(f"model.{key}" for key in ModelSettings.model_fields),
    *(f"model.concurrency.{key}" for key in ConcurrencySettings.model_fields),
}

TABLES = {"model": ModelSettings, "model.sampling": SamplingSettings, "rule": RuleSettings}
"""What repeats."""


def settings(kind: type[BaseModel] = Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting's dotted name and default."""
    for key, field in kind.model_fields.items():
        inner = TABLES.get(prefix + key, field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from settings(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", field.get_default(call_default_factory=True, validated_data={})


def documented() -> dict[str, Any]:
    """The reference with its settings uncommented: prose has a space after the #, settings have none."""
    document = tomllib.loads(re.sub(r"^#(?=[a-z\[])", "", REFERENCE, flags=re.MULTILINE))
    # Further tables are there for the keys that the first does not have.
    rule = _together(document["rule"])
    actions = _together([rule[name] for name in ("any", *RequestClass)])
    rule |= dict.fromkeys(("any", *RequestClass), actions)
    return document | {"model": document["model"][-1] | document["model"][0], "rule": rule}


def _together(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """One with the keys of all, down to the tables inside them."""
    together: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, dict) and key in together
            together[key] = _together([together[key], value]) if both else value
    return together


@pytest.mark.parametrize(("name", "default"), list(settings()))
def test_every_setting_is_in_the_reference_with_its_default(name: str, default: Any) -> None:
    """Uncommenting a line of models.toml changes nothing."""
    value: Any = documented()
    for step in name.split("."):
        value = value[step]
    is_example = name in EXAMPLES or name.startswith("rule.")
    assert is_example or value == (list(default) if isinstance(default, tuple) else default)


def test_the_reference_knows_no_other_setting(tmp_path: Path) -> None:
    """It is a valid file, also with everything uncommented."""
    file = tmp_path / "models.toml"
    file.write_text(re.sub(r"^#(?=[a-z\[])", "", REFERENCE, flags=re.MULTILINE))
    assert config.Config.resolve(config_file=file, environ={}).models[-1].name == "qwen3-8b"


def test_the_reference_changes_no_default() -> None:
    """It is what a machine without a configuration of its own reads."""
    plain = config.Config.resolve(config_file=config.reference(), environ={})
    assert (plain.server, plain.defaults) == (ServerSettings(), DefaultsSettings())
    assert (plain.memory, plain.power) == (MemorySettings(), PowerSettings())


def test_every_setting_has_a_comment() -> None:
    """Right above it, or above the group it is in."""
    for block in re.split(r"\n\s*\n", REFERENCE):
        if re.search(r"^#[a-z]\w* =", block, re.MULTILINE):
            assert block.startswith("# "), block


def test_every_setting_with_a_flag_is_in_the_readme() -> None:
    """The short table of the README."""
    from pilotlight.cli import serve

    flags = {option.name or "" for option in serve.command.params}
    for key in flags & set(sources.places(Document)):
        assert f"`PILOTLIGHT_{key.upper()}` | `--{key.replace('_', '-')}`" in README


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_every_route_is_in_the_readme(path: str) -> None:
    """As clients write it."""
    assert f" {path.replace(':path', '')}`" in README


def test_every_metric_is_in_the_readme() -> None:
    """By the name that Prometheus sees."""
    metrics = Metrics(lambda: [], lambda: MemoryStatus(0, 0))
    metrics.registry.register(Gauges(Reading, lambda: 0.0))
    metrics.registry.register(Counters(Ledger()))
    families = {family.name for family in metrics.registry.collect()}
    for name in families:
        assert re.search(rf"`{name}(_total|_info)?`", README), name


def test_the_exit_codes_are_in_the_readme() -> None:
    """And mean the same in `serve --help`."""
    from pilotlight.cli.serve import EPILOG
    from pilotlight.daemon import ExitCode

    words = " ".join(README.split())
    for number, meaning in re.findall(r"^  (\d)  (.+)$", EPILOG, re.MULTILINE):
        assert f"{number} {meaning}" in words
    assert {0, 1, 2, 3, 4} == {code.value for code in ExitCode}


def test_the_table_of_runtimes_is_true() -> None:
    """What the path must be, what to install, and what each can do."""
    rows = {label: cells for label, *cells in map(_cells, re.findall(r"^\| .*\|$", README, re.MULTILINE))}
    runtimes = [name.strip("`") for name in rows[""]]
    packages = {runtime: (package, install) for runtime, package, install in machine.PACKAGES}
    can = [CAPABILITIES[runtime] for runtime in runtimes]
    assert set(runtimes) == CAPABILITIES.keys() - {"echo"}
    assert rows["library"] == [f"`{packages[runtime][0]}`" for runtime in runtimes]
    assert rows["install"] == [f"`pip install {packages[runtime][1]}`" for runtime in runtimes]
    assert rows["sampling fields"] == ["all" if one.sampling == ALL_SAMPLING else "some" for one in can]
    assert rows["threads can be chosen"] == ["yes" if one.threads else "no" for one in can]
    assert rows["threads can change while a model is loaded"] == [
        "yes" if one.live_threads else "no" for one in can
    ]
    assert rows["`mmap` and `gpu_layers` can be chosen"] == [
        "yes" if one.mmap and one.gpu_layers else "no" for one in can
    ]
    assert rows["LoRA adapters"] == ["yes" if one.lora else "no" for one in can]
    assert rows["`kv_cache_type` besides `auto`"] == [", ".join(one.kv_cache_types) or "none" for one in can]
    for runtime, mark in MARKS.items():
        assert f"`{mark}`" in rows["models"][runtimes.index(runtime)]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_every_command_is_in_the_readme() -> None:
    """With its name first."""
    from pilotlight.cli import COMMANDS

    for name in COMMANDS:
        assert f"`pilotlight {name}" in README


def test_every_name_in_the_architecture_page_exists() -> None:
    """A name in backticks is a file, a module, something a module has, or of the standard library."""
    names = re.findall(r"(?<!`)`([A-Za-z_][\w./]*)(?:\(\))?`(?!`)", ARCHITECTURE.read_text())
    known = set(_symbols())
    assert [name for name in names if not (name in known or _is_file(name) or _is_standard(name))] == []


def _is_file(name: str) -> bool:
    return any(
        (ROOT / folder / name).exists() for folder in ("", "server/pilotlight", "server/pilotlight/runtimes")
    )


def _is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def _symbols() -> Iterator[str]:
    """Every name the package defines, dotted to any depth: `Loop`, `scheduler.loop`, `Loop.submit`."""
    package = ROOT / "server" / "pilotlight"
    for file in package.rglob("*.py"):
        module = ".".join(file.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        for name in [module, *(f"{module}.{name}" for name in _defined(ast.parse(file.read_text())))]:
            parts = name.split(".")
            yield from (".".join(parts[start:]) for start in range(len(parts)))


def _defined(body: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in body.body:
        match node:
            case ast.ClassDef(name=name):
                yield from (name, *(f"{name}.{member}" for member in _defined(node)))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name
