"""Machines as their files: each TOML file in `trees/` is one, written from a public report that it names.

A table is a folder, its keys are files in it; `expect` is what is to be read, `unknown` in it what must not
be."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.power.finding import assemble
from pilotlight.power.linux import Linux
from pilotlight.power.reading import Reading, Supply

FOLDER = Path(__file__).with_name("trees")


@dataclass(frozen=True)
class Tree:
    """One machine; `expect` by field of `Reading`."""

    name: str
    description: str
    report: str
    expect: dict[str, Any]
    unknown: tuple[str, ...]
    files: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, path: Path) -> "Tree":
        document = tomllib.loads(path.read_text())
        description, report = document.pop("description"), document.pop("report")
        expect = document.pop("expect")
        unknown = tuple(expect.pop("unknown", ()))
        return cls(path.stem, description, report, expect, unknown, document)

    @property
    def is_on_mains(self) -> bool:
        return self.expect.get("supply", Supply.AC) == Supply.AC

    @property
    def contents(self) -> dict[str, Any]:
        """Of the files, by path."""
        return {
            f"{folder}/{name}": text for folder, files in self.files.items() for name, text in files.items()
        }

    def write(self, root: Path) -> None:
        """Make the files; everything else of the machine is missing."""
        write(root, self.contents)


TREES = [Tree.load(path) for path in sorted(FOLDER.glob("*.toml"))]


def write(root: Path, files: dict[str, Any]) -> None:
    """Files with a line each, by their path."""
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")


def reading_of(root: Path, now: float = 0.0) -> Reading:
    """What one look at these files says."""
    return assemble(Linux(root).look(now, ()), now)
