"""Memory of running jobs, sampled: no kernel limit is needed, and none is promised."""

import asyncio
from collections.abc import Callable, Collection

from alpyne_grid.nodes.compute.backends.worker_handle import WorkerHandle, WorkerState
from alpyne_grid.nodes.compute.worker import tree

LIMITED_S = 0.1  # between samples while a job with a limit runs
UNLIMITED_S = 1.0  # for the record only


class MemorySampler:
    """Samples all running workers in turn; it sleeps while none runs."""

    def __init__(self, running: Callable[[], Collection[WorkerHandle]]) -> None:
        self._running = running
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = UNLIMITED_S

    def wake(self, *, limited: bool) -> None:
        """Tell that a job begins, with or without a memory limit."""
        pause_s = LIMITED_S if limited else UNLIMITED_S
        if self._timer is not None and self._pause_s <= pause_s:
            return
        self._schedule(pause_s)

    def close(self) -> None:
        """Sample no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, pause_s: float) -> None:
        self.close()
        self._pause_s = pause_s
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._sample)

    def _sample(self) -> None:
        self._timer = None
        limited = False
        running = [w for w in self._running() if w.state is WorkerState.RUNNING]
        for worker in running:
            assert worker.current is not None, "a running worker has a job"
            most = worker.current.task.memory_bytes
            worker.note_memory(_held_bytes(worker.supervisor, most))
            limited = limited or bool(most)
        if running:
            self._schedule(LIMITED_S if limited else UNLIMITED_S)


def _held_bytes(supervisor: int, most: int) -> int:
    """Return the memory of the tree below ``supervisor``.

    The sum of resident sets counts what forked processes share more than once; where that sum is
    over the limit ``most``, the exact but slower proportional sets decide.
    """
    processes = tree.descendants(supervisor)
    resident = sum(map(tree.resident_bytes, processes))
    if not most or resident <= most or len(processes) < 2:
        return resident
    return sum(map(tree.proportional_bytes, processes)) or resident
