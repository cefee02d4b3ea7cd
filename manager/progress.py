"""Progress bars, on a terminal only. The library that draws them is loaded when one is drawn."""

import sys
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from alpyne_grid.manager.maps import MapRun
    from alpyne_grid.manager.trees import Transfer


class Progress:
    """The bars of one manager, drawn on standard error.

    ``wanted``: None: where standard error is a terminal.
    """

    def __init__(self, *, wanted: bool | None) -> None:
        self._wanted = sys.stderr.isatty() if wanted is None else wanted
        self._display: Any = None
        self._bars = 0
        self._lock = threading.Lock()

    def bar(self, title: str) -> "Bar":
        """Return a bar; one that draws nothing where none are wanted."""
        return Bar(self if self._wanted else None, title)

    def close(self) -> None:
        """Stop drawing."""
        with self._lock:
            if self._display is not None:
                self._display.stop()
                self._display = None

    # --- for bars ---------------------------------------------------------------------------

    def add(self, title: str) -> Any:
        """Begin to draw a bar, and return its number."""
        with self._lock:
            if self._display is None:
                self._display = _display()
                self._display.start()
            self._bars += 1
            return self._display.add_task(title, total=None)

    def update(self, number: Any, done: float, total: float | None, title: str) -> None:
        """Draw a bar's new state."""
        with self._lock:
            if self._display is not None:
                self._display.update(number, completed=done, total=total, description=title)

    def end(self) -> None:
        """Take note that a bar's work is over; the display stops with the last."""
        with self._lock:
            self._bars -= 1
            if self._bars == 0 and self._display is not None:
                self._display.stop()
                self._display = None


class Bar:
    """One bar, which is drawn from its first progress on."""

    def __init__(self, progress: Progress | None, title: str) -> None:
        self._progress = progress
        self._title = title
        self._number: Any = None
        self._closed = False

    def name(self, title: str) -> None:
        """Give it a title, if it has none."""
        self._title = self._title or title

    def show_run(self, run: "MapRun") -> None:
        """Show how far a map has come."""
        failed = f" ({run.items_failed} failed)" if run.items_failed else ""
        self._show(run.items_done + run.items_failed, run.total, f"{self._title}{failed}")

    def show_transfer(self, transfer: "Transfer") -> None:
        """Show how far a folder has come."""
        self._show(transfer.files + transfer.unchanged, transfer.total or None, self._title)

    def close(self) -> None:
        """The work is over."""
        if not self._closed:
            self._closed = True
            if self._progress is not None and self._number is not None:
                self._progress.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _show(self, done: float, total: float | None, title: str) -> None:
        if self._progress is None or self._closed:
            return
        if self._number is None:
            self._number = self._progress.add(title)
        self._progress.update(self._number, done, total, title)


def _display() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    return Display(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=False,
    )
