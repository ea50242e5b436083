"""The rooms keep to themselves: what is above the workers knows no runtime by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.runtimes.capabilities import CAPABILITIES

PACKAGE = Path(__file__).parents[1] / "server" / "pilotlight"

NAMES = {*CAPABILITIES, "runtimes", "llama_cpp", "onnxruntime", "onnxruntime_genai", "mlx_lm"} - {"echo"}
"""The runtimes, their package and their libraries; "echo" is also a field of OpenAI's."""

FILES = [file for room in ("api", "chat", "scheduler") for file in sorted((PACKAGE / room).glob("*.py"))]


def words(source: str) -> Iterator[str]:
    """Every module, name and text constant of a program, docstrings left out."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names):
                yield from (f"{module}.{name.name}" for name in names)
            case ast.Name(id=word) | ast.Attribute(attr=word):
                yield word
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield text


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_above_the_workers_names_a_runtime(file: Path) -> None:
    """Neither in an import nor by comparing a name."""
    assert [word for word in words(file.read_text()) if NAMES & set(word.split("."))] == []


def test_a_file_that_names_one_would_be_found() -> None:
    """By import, and by name."""
    program = "from pilotlight.runtimes.echo import Echo\nif model.runtime == 'llamacpp': pass"
    assert sum(bool(NAMES & set(word.split("."))) for word in words(program)) == 2
