"""Looks at running jobs from time to time: what they hold in memory, which limits they have hit."""

import asyncio
from collections.abc import Callable, Collection

from alpyne_grid.nodes.compute.backends.worker_handle import WorkerHandle

LIMITED_S = 0.1  # between samples while a job with a limit runs
UNLIMITED_S = 1.0  # for the record only


class Sampler:
    """Samples all running workers in turn; it sleeps while none runs."""

    def __init__(self, workers: Callable[[], Collection[WorkerHandle]]) -> None:
        self._workers = workers
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = UNLIMITED_S

    def wake(self, *, limited: bool) -> None:
        """Tell that a job begins, with or without a limit."""
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
        limited, runs = False, False
        for worker in list(self._workers()):
            if worker.current is not None:
                limited = worker.sample() or limited
                runs = True
        if runs:
            self._schedule(LIMITED_S if limited else UNLIMITED_S)
