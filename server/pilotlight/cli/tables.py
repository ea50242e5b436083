"""The look of every table that a command prints."""

import re
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pilotlight.cli.terminal import plain

UNLIMITED = 10_000
"""Columns of what is no terminal: a program that reads a table needs all of it."""

BETWEEN = 3
"""Columns of the terminal from one cell to the next: a space to either side of where a line could be."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """One line per row; the texts as they are: a name in brackets is no markup. On a narrow terminal words go
    to further lines of their row; nothing is cut, and no word is broken by us."""
    cells = [[column.upper() for column in columns], *rows]
    limit = Console().width if sys.stdout.isatty() else UNLIMITED
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, width in zip(cells[0], _widths(cells, limit), strict=True):
        table.add_column(column, width=width, overflow="fold")
    for row in cells[1:]:
        table.add_row(*(Text(plain(cell)) for cell in row))
    Console(width=UNLIMITED).print(table)


def _widths(cells: Sequence[Sequence[str]], limit: int) -> list[int]:
    """Of the columns: the widest gives first, and none more than leaves room for its longest word. If that is
    not enough, none gives: the terminal breaks whole lines, of which every letter can still be read."""
    columns = list(zip(*cells, strict=True))
    natural = [max(map(cell_len, column)) for column in columns]
    least = [max(map(_longest_word, column)) for column in columns]
    free = limit - BETWEEN * len(columns)
    if sum(least) > free:
        return natural
    widths = list(natural)
    while sum(widths) > free:
        _, widest = max((width, number) for number, width in enumerate(widths) if width > least[number])
        widths[widest] -= 1
    return widths


def _longest_word(text: str) -> int:
    """The first one with what it is indented by."""
    return max(map(cell_len, re.findall(r"^\s*\S+|\S+", text)), default=0)
