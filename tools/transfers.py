"""Bars for transfers, on a terminal only: bytes of one object, or files of a folder."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from alpyne_grid.manager import AsyncManager
from alpyne_grid.manager.progress import Progress
from alpyne_grid.manager.trees import Transfer

from alpyne_proto.messages.hello import NodeKind

_STEP_S = 0.1


@contextlib.asynccontextmanager
async def byte_bar(
    grid: AsyncManager, title: str, total: int, *, sending: bool
) -> AsyncIterator[None]:
    """Draw a bar of ``total`` bytes while the block runs, as far as the connections have come.

    They count what they send, compressed: a bar may be full before its time is over.
    """
    if not sys.stderr.isatty():
        yield
        return

    def moved() -> int:
        links = [link for link in grid.core.links.values() if link.kind is NodeKind.DATA]
        return sum(link.sent_bytes if sending else link.received_bytes for link in links)

    display = _display()
    number = display.add_task(title, total=total)
    begin = moved()

    async def draw() -> None:
        while True:
            display.update(number, completed=min(total, moved() - begin))
            await asyncio.sleep(_STEP_S)

    with display:
        drawing = asyncio.ensure_future(draw())
        try:
            yield
            display.update(number, completed=total)
        finally:
            drawing.cancel()


@contextlib.contextmanager
def file_bar(title: str) -> Iterator[Callable[[Transfer], None]]:
    """Give a function that draws how many files of a folder have come."""
    progress = Progress(wanted=None)
    try:
        with progress.bar(title) as bar:
            yield bar.show_transfer
    finally:
        progress.close()


def _display() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Display

    return Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
