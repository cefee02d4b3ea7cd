"""What the main job shows: steps with progress bars while it works, tables at the end."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

T = TypeVar("T")


class Screen:
    """Prints to a terminal with bars, elsewhere one line a step."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.times: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show one step; the yielded function is told how many more of ``total`` are done."""
        began = time.monotonic()
        progress = Progress(
            TextColumn("{task.description:<44}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        with progress:
            task = progress.add_task(title, total=total)
            yield lambda count: progress.advance(task, count)
            progress.update(task, total=total or 1, completed=total or 1)
        took = time.monotonic() - began
        self.times.append((title, took))
        if not self.console.is_terminal:
            counted = f" ({total})" if total else ""
            self.console.print(f"{title}{counted}: {took:.2f} s")

    def say(self, text: str) -> None:
        """Print one line between or within steps."""
        self.console.print(text)

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, left: int = 1
    ) -> None:
        """Print a table; all but the first ``left`` columns are aligned to the right."""
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False
        )
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index < left else "right")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self.console.print()
        self.console.print(table)


def counted(items: Iterable[T], done: Callable[[int], None]) -> Iterator[T]:
    """Yield ``items``, telling ``done`` of each."""
    for item in items:
        yield item
        done(1)


def megabytes(size: int) -> str:
    """Return ``size`` bytes as a short text."""
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size} B"
