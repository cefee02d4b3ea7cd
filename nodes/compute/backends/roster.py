"""Which workers a pool has, and which it is starting, by kind, account and state."""

import asyncio
from collections.abc import Container, Iterator

from alpyne_grid.nodes.compute.backends.base import Execution
from alpyne_grid.nodes.compute.backends.cells import Kind
from alpyne_grid.nodes.compute.backends.worker_handle import WorkerHandle
from alpyne_grid.nodes.compute.backends.worker_state import WorkerState

SPARE_CELLS = 2  # of an account beyond the slots, before an idle one of another kind ends
CELLS_PER_SLOT = 4  # of all accounts, before an idle one that is not kept warm ends
_ENDING = (WorkerState.ENDING, WorkerState.GONE)


class Roster:
    """The workers of one pool."""

    def __init__(self, slots: int) -> None:
        """``slots``: jobs that run at once."""
        self.workers: set[WorkerHandle] = set()
        self.making: dict[int, tuple[Kind, asyncio.Task[None]]] = {}  # by the worker's number
        self._slots = slots

    def of(self, kind: Kind, state: WorkerState | None = None) -> Iterator[WorkerHandle]:
        """Yield the workers of a kind; those that are about to end only where they are asked."""
        for worker in self.workers:
            wanted = worker.state is state or (state is None and worker.state not in _ENDING)
            if wanted and worker.kind == kind:
                yield worker

    def running(self, execution: Execution) -> WorkerHandle | None:
        """Return the worker that has ``execution``."""
        for worker in self.workers:
            if worker.current is not None and worker.current.task.execution == execution:
                return worker
        return None

    def count_making(self, kind: Kind) -> int:
        """Count the cells of a kind that are being made."""
        return sum(other == kind for other, _ in self.making.values())

    def count_starting(self, kind: Kind) -> int:
        """Count the workers of a kind that will be ready for a job that waits now."""
        return self.count_making(kind) + sum(1 for _ in self.of(kind, WorkerState.STARTING))

    def count_of_account(self, account: bytes) -> int:
        """Count the account's workers that are there to stay, and those that are being made."""
        here = sum(
            worker.kind.account == account and worker.state not in _ENDING
            for worker in self.workers
        )
        return here + sum(kind.account == account for kind, _ in self.making.values())

    def one_too_many(self, kind: Kind, warm: Container[Kind]) -> WorkerHandle | None:
        """Return an idle worker of another kind, if there are too many for one more of ``kind``.

        Too many of the account, or of all; ``warm``: kinds of which idle ones are wanted.
        """
        idle = [w for w in self.workers if w.state is WorkerState.IDLE and w.kind != kind]
        not_warm = [worker for worker in idle if worker.kind not in warm]
        if self.count_of_account(kind.account) >= self._slots + SPARE_CELLS:
            own = [w for w in (*not_warm, *idle) if w.kind.account == kind.account]
            return own[0] if own else None
        if len(self.workers) + len(self.making) >= self._slots * CELLS_PER_SLOT + SPARE_CELLS:
            return not_warm[0] if not_warm else None
        return None
