"""A back end of warm workers in cells, the same at every isolation level.

Each worker serves one account only, behind walls that are fixed for its life. A job gets an idle
worker of its kind, or waits for one that is started for it.
"""

import asyncio
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

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
from alpyne_grid.nodes.compute.backends.cells import CellMaker, Kind
from alpyne_grid.nodes.compute.backends.launch import folder_tag
from alpyne_grid.nodes.compute.backends.roster import Roster
from alpyne_grid.nodes.compute.backends.sampler import Sampler
from alpyne_grid.nodes.compute.backends.worker_handle import WorkerHandle
from alpyne_grid.nodes.compute.backends.worker_state import WorkerState

from alpyne_proto.messages.compute import Cause, JobState

IDLE_MAX_S = 60.0  # an idle worker beyond those that are kept warm
FAILED_STARTS_MAX = 3  # in a row; then no worker is started ahead of a job
MAKING_PATIENCE_S = 10.0  # at the close, for cells that are being made
TEXT_MAX = 1000  # characters of why no worker could be started


@dataclass(slots=True, eq=False)
class _Waiting:
    """A task that no worker has yet."""

    task: Task
    sink: TaskSink
    suspended: bool = False


class WorkerPool:
    """Runs jobs in warm workers; see ``Backend`` for what its methods promise."""

    def __init__(self, name: str, setup: BackendSetup, maker: CellMaker) -> None:
        """Start nothing; ``reap`` and ``start`` follow."""
        self._name = name
        self._setup = setup
        self._maker = maker
        maker.when_lost = self._lost
        self._roster = Roster(setup.slots)
        self._workers = self._roster.workers
        self._making = self._roster.making
        self._waiting: dict[Kind, deque[_Waiting]] = {}
        self._warm: dict[Kind, int] = {}
        self._sampler = Sampler(lambda: self._workers)
        self._results = setup.folder / "results"
        self._started = 0
        self._failed_starts = 0
        self._closing = False
        self._all_gone = asyncio.Event()

    # ---- what it is ----

    @property
    def name(self) -> str:
        return self._name

    @property
    def level(self) -> int:
        return self._maker.level

    @property
    def limits(self) -> Mapping[str, Enforcement]:
        return self._maker.limits

    @property
    def pythons(self) -> tuple[str, ...]:
        return self._maker.pythons

    @property
    def images(self) -> tuple[str, ...]:
        return self._maker.images

    @property
    def networks(self) -> tuple[str, ...]:
        return self._maker.networks

    @property
    def suspends(self) -> Suspends:
        return self._maker.suspends

    # ---- life ----

    async def check(self) -> str:
        """Say what it would run jobs in; OSError or ConfigError with what to do."""
        return await self._maker.check()

    async def reap(self) -> int:
        """End what an earlier daemon of this folder left running; return how many processes."""
        return await self._maker.reap()

    async def start(self) -> None:
        """Get ready; OSError with what to do where that fails."""
        await self._maker.start()
        await asyncio.to_thread(shutil.rmtree, self._results, ignore_errors=True)
        self._results.mkdir(mode=0o700, parents=True)

    def confine(self) -> None:
        """Give up what the daemon's process needs no more."""
        self._maker.confine()

    async def close(self) -> None:
        """End all workers; every running or waiting execution gets its ``ended``."""
        self._closing = True
        self._warm.clear()
        self._sampler.close()
        for waiting in self._waiting.values():
            while waiting:
                entry = waiting.popleft()
                entry.sink.ended(entry.task.execution, _killed("the node is shutting down"))
        for worker in list(self._workers):
            worker.end(_killed("the node is shutting down"))
        await self._end_making()
        if self._workers:
            await self._all_gone.wait()
        await self._maker.close()
        if self._setup.objects is not None:
            await self._setup.objects.close()

    async def _end_making(self) -> None:
        """Wait for cells that are being made, each of which ends at once, and then no longer."""
        if self._making:
            tasks = [task for _, task in self._making.values()]
            _, late = await asyncio.wait(tasks, timeout=MAKING_PATIENCE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    # ---- jobs ----

    def warm(self, account: bytes, workers: int) -> None:
        """Keep about ``workers`` workers alive for ``account``; 0 ends its idle ones."""
        kind = Kind(account, self._maker.walls(None))
        if workers:
            self._warm[kind] = workers
            self._fill(kind)
            return
        self._warm.pop(kind, None)
        for worker in list(self._workers):
            if worker.kind.account == account and worker.state is WorkerState.IDLE:
                worker.end()

    def run(self, task: Task, sink: TaskSink) -> None:
        """Give ``task`` to an idle worker of its kind, or to one that is started for it."""
        kind = Kind(task.execution.account, self._maker.walls(task))
        idle = next(self._roster.of(kind, WorkerState.IDLE), None)
        if idle is not None:
            self._give(idle, task, sink)
            return
        waiting = self._waiting.setdefault(kind, deque())
        waiting.append(_Waiting(task, sink))
        if self._roster.count_starting(kind) < len(waiting):
            self._start_worker(kind)

    def cancel(self, execution: Execution) -> None:
        """End the execution's tree; one that still waits for a worker just ends."""
        worker = self._roster.running(execution)
        if worker is not None:
            worker.end(_killed("cancelled"))
            return
        for waiting in self._waiting.values():
            for entry in waiting:
                if entry.task.execution == execution:
                    waiting.remove(entry)
                    self._end_soon(entry, _killed("cancelled before it began"))
                    return

    def suspend(self, execution: Execution) -> None:
        """Stop the execution's tree, or hold it back where it still waits for a worker."""
        self._set_suspended(execution, suspended=True)

    def resume(self, execution: Execution) -> None:
        """Let the execution's tree go on."""
        self._set_suspended(execution, suspended=False)

    def _set_suspended(self, execution: Execution, *, suspended: bool) -> None:
        worker = self._roster.running(execution)
        if worker is not None:
            if suspended:
                worker.suspend()
            else:
                worker.resume()
            return
        for waiting in self._waiting.values():
            for entry in waiting:
                if entry.task.execution == execution:
                    entry.suspended = suspended

    # ---- workers ----

    def worker_idle(self, worker: WorkerHandle) -> None:
        """Give it what waits for it, or see that it does not idle for ever."""
        self._failed_starts = 0
        if self._waiting:
            entry = self._next_waiting(worker.kind)
            if entry is not None:
                self._give(worker, entry.task, entry.sink, held=entry.suspended)
                return
        warm = self._warm.get(worker.kind, 0)
        if len(self._workers) > warm and len(list(self._roster.of(worker.kind))) > warm:
            worker.end_when_idle_for(IDLE_MAX_S)

    def worker_gone(self, worker: WorkerHandle, why: str) -> None:
        """Replace it where it is missed; fail the job that waited for one that did not start."""
        self._workers.discard(worker)
        if not self._workers:
            self._all_gone.set()
        if why:
            self._note_failed_start(worker.kind, why)
        self._replace(worker.kind)

    def _replace(self, kind: Kind) -> None:
        if self._closing:
            return
        waiting = self._waiting.get(kind)
        if waiting and self._roster.count_starting(kind) < len(waiting):
            self._start_worker(kind)
        for kept in self._warm:
            if kept.account == kind.account:
                self._fill(kept)

    def _give(
        self, worker: WorkerHandle, task: Task, sink: TaskSink, *, held: bool = False
    ) -> None:
        worker.run(task, sink, held=held)
        current = worker.current
        self._sampler.wake(limited=current is not None and current.limited)

    def _next_waiting(self, kind: Kind) -> _Waiting | None:
        waiting = self._waiting.get(kind)
        if not waiting:
            return None
        entry = waiting.popleft()
        if not waiting:
            del self._waiting[kind]
        return entry

    # ---- starting ----

    def _fill(self, kind: Kind) -> None:
        """Start workers up to the number that is kept warm, where other kinds leave room."""
        if self._failed_starts >= FAILED_STARTS_MAX:
            return
        warm = self._warm.get(kind, 0)
        missing = warm - len(list(self._roster.of(kind))) - self._roster.count_making(kind)
        room = max(warm, self._setup.slots) - self._roster.count_of_account(kind.account)
        for _ in range(min(missing, room)):
            self._start_worker(kind)

    def _start_worker(self, kind: Kind) -> None:
        too_many = self._roster.one_too_many(kind, self._warm)
        if too_many is not None:
            too_many.end()
        self._started += 1
        number = self._started
        task = asyncio.get_running_loop().create_task(self._make(kind, number))
        self._making[number] = kind, task

    async def _make(self, kind: Kind, number: int) -> None:
        why = ""
        try:
            tag = folder_tag(self._setup.folder)
            mark = f"{tag}.{self._setup.boot_id.hex()}.{number}."
            cell = await self._maker.make(kind, mark)
        except OSError as error:
            why = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - a job waits for it, whatever a maker raises
            why = f"{type(error).__name__}: {error}"
        finally:
            del self._making[number]
        if why:
            self._note_failed_start(kind, why)
            self._replace(kind)
            return
        worker = WorkerHandle(cell, kind, number, self, self._setup.objects, self._results)
        self._all_gone.clear()
        self._workers.add(worker)
        if self._closing:
            worker.end()

    def _note_failed_start(self, kind: Kind, why: str) -> None:
        self._failed_starts += 1
        entry = self._next_waiting(kind)
        if entry is not None:
            text = f"the node could not start a worker: {why}"[:TEXT_MAX]
            self._end_soon(entry, failed(Cause.NODE, text))

    def _lost(self, why: str) -> None:
        """React to the loss of what all cells depend on; new ones are made as they are asked."""
        for worker in list(self._workers):
            worker.lose(why)

    def _end_soon(self, entry: _Waiting, end: TaskEnd) -> None:
        """Tell that it ended, once the call at hand has returned."""
        asyncio.get_running_loop().call_soon(entry.sink.ended, entry.task.execution, end)


def _killed(text: str) -> TaskEnd:
    return TaskEnd(JobState.KILLED, Cause.CANCELLED, text)
