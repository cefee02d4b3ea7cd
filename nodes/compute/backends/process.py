"""The back end ``process``: plain processes of the daemon's own user, isolation level 0.

It keeps warm workers, each for one account only. It serves owners whom the node's administrator
trusts: a job can do all that the daemon's user can.
"""

import asyncio
import secrets
import shutil
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from alpyne_grid.nodes.compute.backends.assignment import failed
from alpyne_grid.nodes.compute.backends.base import (
    BackendSetup,
    Enforcement,
    Execution,
    Suspends,
    Task,
    TaskEnd,
    TaskSink,
)
from alpyne_grid.nodes.compute.backends.launch import MARK, launch, package_places
from alpyne_grid.nodes.compute.backends.sampler import MemorySampler
from alpyne_grid.nodes.compute.backends.worker_handle import WorkerHandle, WorkerState
from alpyne_grid.nodes.compute.worker import tree

from alpyne_grid.durable import write_durably
from alpyne_proto.messages.compute import Cause, JobState

IDLE_MAX_S = 60.0  # an idle worker beyond those that are kept warm
FAILED_STARTS_MAX = 3  # in a row; then no worker is started ahead of a job
LIMITS: Mapping[str, Enforcement] = MappingProxyType(
    {
        "cpu": "none",
        "memory": "sampled",
        "wall": "sampled",
        "output": "sampled",
        "result": "sampled",
        "processes": "none",
        "disk": "none",
        "network": "none",
    }
)


class ProcessBackend:
    """Runs jobs in warm workers; see ``Backend`` for what its methods promise."""

    def __init__(self, setup: BackendSetup) -> None:
        """Start nothing; ``reap`` and ``start`` follow."""
        self._setup = setup
        self._workers: set[WorkerHandle] = set()
        self._waiting: dict[bytes, deque[tuple[Task, TaskSink]]] = defaultdict(deque)
        self._warm: dict[bytes, int] = {}
        self._sampler = MemorySampler(lambda: self._workers)
        self._started = 0
        self._failed_starts = 0
        self._closing = False
        self._all_gone = asyncio.Event()
        self._places: list[str] = []

    @property
    def name(self) -> str:
        return "process"

    @property
    def level(self) -> int:
        return 0

    @property
    def limits(self) -> Mapping[str, Enforcement]:
        return LIMITS

    @property
    def pythons(self) -> tuple[str, ...]:
        return (f"{sys.version_info.major}.{sys.version_info.minor}",)

    @property
    def images(self) -> tuple[str, ...]:
        return ()

    @property
    def networks(self) -> tuple[str, ...]:
        return ()

    @property
    def suspends(self) -> Suspends:
        return "none"

    async def check(self) -> str:
        """Say which Python the workers run; OSError where a package of the runtime is missing."""
        package_places()
        return f"workers run {sys.executable}"

    def confine(self) -> None:
        """Nothing: a plain process back end needs all that the daemon has."""

    def suspend(self, execution: Execution) -> None:
        raise NotImplementedError("suspends is none")

    def resume(self, execution: Execution) -> None:
        raise NotImplementedError("suspends is none")

    # ---- life ----

    async def reap(self) -> int:
        """End what an earlier daemon of this folder left running; return how many processes."""
        tag = self._tag()

        def find() -> list[int]:
            return tree.with_descendants(tree.marked(MARK, f"{tag}."))

        receipt = await asyncio.to_thread(tree.end_all, find)
        return receipt.ended

    async def start(self) -> None:
        """Make its folders; OSError where that fails or a package of the runtime is missing."""
        self._places = package_places()
        for folder in (self._scratch, self._results):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)

    async def close(self) -> None:
        """End all workers; every running or waiting execution gets its ``ended``."""
        self._closing = True
        self._warm.clear()
        self._sampler.close()
        for account in list(self._waiting):
            while self._waiting[account]:
                task, sink = self._waiting[account].popleft()
                sink.ended(task.execution, _killed("the node is shutting down"))
        for worker in list(self._workers):
            worker.end(_killed("the node is shutting down"))
        if self._workers:
            await self._all_gone.wait()
        if self._setup.objects is not None:
            await self._setup.objects.close()

    # ---- jobs ----

    def warm(self, account: bytes, workers: int) -> None:
        """Keep about ``workers`` workers alive for ``account``; 0 ends its idle ones."""
        if workers:
            self._warm[account] = workers
            self._fill(account)
            return
        self._warm.pop(account, None)
        for worker in self._of(account, WorkerState.IDLE):
            worker.end()

    def run(self, task: Task, sink: TaskSink) -> None:
        """Give ``task`` to an idle worker of its account, or to one that is started for it."""
        account = task.execution.account
        idle = next(self._of(account, WorkerState.IDLE), None)
        if idle is not None:
            self._give(idle, task, sink)
            return
        self._waiting[account].append((task, sink))
        if len(list(self._of(account, WorkerState.STARTING))) < len(self._waiting[account]):
            self._start_worker(account)

    def cancel(self, execution: Execution) -> None:
        """End the execution's tree; one that still waits for a worker just ends."""
        for worker in self._of(execution.account, WorkerState.RUNNING):
            if worker.current is not None and worker.current.task.execution == execution:
                worker.end(_killed("cancelled"))
                return
        waiting = self._waiting[execution.account]
        for entry in waiting:
            if entry[0].execution == execution:
                waiting.remove(entry)
                self._end_soon(entry, _killed("cancelled before it began"))
                return

    # ---- workers ----

    def worker_idle(self, worker: WorkerHandle) -> None:
        """Give it what waits for it, or see that it does not idle for ever."""
        self._failed_starts = 0
        waiting = self._waiting[worker.account]
        if waiting:
            self._give(worker, *waiting.popleft())
            return
        warm = self._warm.get(worker.account, 0)
        if len(self._workers) > warm and len(list(self._of(worker.account))) > warm:
            worker.end_when_idle_for(IDLE_MAX_S)

    def worker_gone(self, worker: WorkerHandle, why: str) -> None:
        """Replace it where it is missed; fail the job that waited for one that did not start."""
        self._workers.discard(worker)
        if not self._workers:
            self._all_gone.set()
        waiting = self._waiting[worker.account]
        if why:
            self._failed_starts += 1
            if waiting:
                self._end_soon(waiting.popleft(), _not_started(why))
        if self._closing:
            return
        if len(list(self._of(worker.account, WorkerState.STARTING))) < len(waiting):
            self._start_worker(worker.account)
        self._fill(worker.account)

    def _give(self, worker: WorkerHandle, task: Task, sink: TaskSink) -> None:
        worker.run(task, sink)
        self._sampler.wake(limited=bool(task.memory_bytes))

    def _fill(self, account: bytes) -> None:
        """Start workers up to the number that is kept warm."""
        missing = self._warm.get(account, 0) - len(list(self._of(account)))
        for _ in range(missing if self._failed_starts < FAILED_STARTS_MAX else 0):
            self._start_worker(account)

    def _start_worker(self, account: bytes) -> None:
        self._started += 1
        mark = f"{self._tag()}.{self._setup.boot_id.hex()}.{self._started}."
        try:
            launched = launch(mark, self._scratch / str(self._started), self._places)
        except OSError as error:
            self._failed_starts += 1
            if self._waiting[account]:
                self._end_soon(self._waiting[account].popleft(), _not_started(str(error)))
            return
        self._all_gone.clear()
        self._workers.add(WorkerHandle(launched, account, self, self._setup.objects, self._results))

    def _of(self, account: bytes, state: WorkerState | None = None) -> Iterator[WorkerHandle]:
        """Yield the workers of an account that are not about to end."""
        ending = (WorkerState.ENDING, WorkerState.GONE)
        for worker in list(self._workers):
            if worker.account == account and (
                worker.state is state or (state is None and worker.state not in ending)
            ):
                yield worker

    def _end_soon(self, entry: tuple[Task, TaskSink], end: TaskEnd) -> None:
        task, sink = entry
        asyncio.get_running_loop().call_soon(sink.ended, task.execution, end)

    # ---- folders ----

    @property
    def _scratch(self) -> Path:
        return self._setup.folder / "scratch"

    @property
    def _results(self) -> Path:
        return self._setup.folder / "results"

    def _tag(self) -> str:
        """Return what marks the processes of all daemons of this folder, earlier ones' too."""
        path = self._setup.folder / "mark"
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(path, secrets.token_hex(8).encode())
        return path.read_text()


def _killed(text: str) -> TaskEnd:
    return TaskEnd(JobState.KILLED, Cause.CANCELLED, text)


def _not_started(why: str) -> TaskEnd:
    return failed(Cause.NODE, f"the node could not start a worker: {why}"[:1000])
