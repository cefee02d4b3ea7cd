"""Stops and continues what a cell runs, one change after the other, until it is as was asked."""

import asyncio
from collections.abc import Callable

from alpyne_grid.nodes.compute.backends.cells import Cell


class Suspension:
    """Brings one cell to the last state that was asked for; what was asked before may be skipped.

    ``suspended`` and ``resumed`` are called when the cell has changed, ``failed`` with the reason
    when it cannot be changed.
    """

    def __init__(
        self,
        cell: Cell,
        suspended: Callable[[], None],
        resumed: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self._cell = cell
        self._suspended = suspended
        self._resumed = resumed
        self._failed = failed
        self._wanted = False
        self._stopped = False
        self._driving: asyncio.Task[None] | None = None

    @property
    def in_the_way(self) -> bool:
        """Whether the cell stands still, or may do so at any moment."""
        return self._stopped or self._driving is not None

    def want(self, *, stopped: bool) -> None:
        """Have the cell stopped, or running."""
        self._wanted = stopped
        if self._driving is None and self._stopped != stopped:
            self._driving = asyncio.get_running_loop().create_task(self._drive())

    def close(self) -> None:
        """Change nothing any more: the cell is being ended."""
        if self._driving is not None:
            self._driving.cancel()

    async def _drive(self) -> None:
        try:
            while self._stopped != self._wanted:
                to = self._wanted
                await (self._cell.freeze() if to else self._cell.thaw())
                self._stopped = to
                (self._suspended if to else self._resumed)()
        except OSError as error:
            self._failed(str(error))
        finally:
            self._driving = None
