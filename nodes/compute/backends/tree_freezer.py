"""Suspends by signals: SIGSTOP to the tree below a supervisor, SIGCONT to let it go on."""

import asyncio

from alpyne_grid.nodes.compute.worker import tree

PATIENCE_S = 3.0  # for a tree to stop that forks as fast as it is found


class TreeFreezer:
    """Stops and continues one tree; a job can see that it was stopped."""

    def __init__(self, supervisor: int, *spared: int) -> None:
        """``supervisor`` and ``spared``, what it was started through, are the tree's no more."""
        self._supervisor = supervisor
        self._spared = (supervisor, *spared)
        self._stopped_before: set[int] = set()  # by the job itself

    async def freeze(self) -> None:
        """Return once all stands still; OSError where some of it goes on."""
        going_on = await asyncio.to_thread(self._freeze)
        if going_on:
            raise OSError(f"{going_on} of its processes could not be stopped")

    async def thaw(self) -> None:
        """Let all go on but for what the job had stopped itself."""
        found = tree.descendants(self._supervisor)
        tree.continue_all(pid for pid in reversed(found) if pid not in self._stopped_before)

    def _freeze(self) -> int:
        def find() -> list[int]:
            return tree.descendants(self._supervisor)

        self._stopped_before = {pid for pid in find() if tree.state(pid) == "T"}
        return tree.stop_all(find, PATIENCE_S, spared=self._spared)
