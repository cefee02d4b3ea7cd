"""What commands print: tables, facts and JSON on standard output; notes on standard error.

What came from a node or a stranger (names, texts) may hold terminal control sequences; ``clean``
takes them out before anything reaches a terminal.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_GAP = "  "
_WRAPPED_LEAST = 8  # characters: a column that gives way to the others stays readable


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column; numbers stand to the right."""

    title: str
    right: bool = False
    wraps: bool = False  # may be broken into lines on a terminal that is too narrow


def clean(text: str) -> str:
    """Return ``text`` with control and direction characters shown as ``?``."""
    return _CONTROL.sub("?", text)


def on_terminal() -> bool:
    """Say whether standard output is a terminal."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Print one JSON document: indented on a terminal, else on one line."""
    click.echo(json.dumps(value, indent=2 if on_terminal() else None))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their titles: a table on a terminal, aligned plain columns otherwise."""
    cleaned = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if on_terminal():
        _print_rich(columns, cleaned)
    else:
        _print_plain(columns, cleaned)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair on a line."""
    pairs = [(name, clean(value)) for name, value in facts]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{name:<{width}}{_GAP}{value}")


def note(text: str) -> None:
    """Print a remark for the person on standard error, out of the way of what is piped on."""
    click.echo(clean(text), err=True)


def _print_plain(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    lines = [[column.title for column in columns], *([cell or "-" for cell in r] for r in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        )
        click.echo(_GAP.join(cells).rstrip())


def _print_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    # Imported here: it takes as long as everything else that the command line loads.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
            min_width=_WRAPPED_LEAST if column.wraps else None,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
