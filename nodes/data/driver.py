"""Drives the object table: asks it, performs its effects on the back end, tells it what came of it.

A request's handler asks and gets the effect that is addressed to its operation; stores, discards
and sweeps are performed here, whether or not anybody still waits for their request.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from alpyne_grid.nodes.data import events as ev
from alpyne_grid.nodes.data.backends.base import DataBackend, Stage
from alpyne_grid.nodes.data.object_table import ObjectTable
from alpyne_grid.nodes.data.records import Staged
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire.log import Log

Clock = Callable[[], int]
Step = ev.Load | ev.LoadContainer | ev.Receive | ev.Answer | ev.AnswerContainer | ev.Refuse
Asking = (
    ev.PutAsked
    | ev.DeleteAsked
    | ev.ContainerAsked
    | ev.Loaded
    | ev.ContainerLoaded
    | ev.BodyStaged
)


class ObjectDriver:
    """The table and its back end at work. ``clock_ms``: wall time since the epoch."""

    def __init__(self, table: ObjectTable, backend: DataBackend, clock_ms: Clock) -> None:
        self.table = table
        self._backend = backend
        self._clock_ms = clock_ms
        self._log = Log("data")
        self._ops = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Step]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping = False

    def new_op(self) -> int:
        """Return a number for an operation."""
        return next(self._ops)

    async def ask(self, event: Asking) -> Step:
        """Hand ``event`` to the table and return what its operation's handler has to do next."""
        future: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        self._waiting[event.op] = future
        try:
            self._handle(event)
            return await future
        finally:
            self._waiting.pop(event.op, None)

    async def load(self, wanted: ev.Load | ev.LoadContainer) -> Step:
        """Look up what the table wants to know, and return the operation's next step."""
        if isinstance(wanted, ev.LoadContainer):
            current = await self._backend.container(wanted.owner, wanted.container_id)
            return await self.ask(ev.ContainerLoaded(wanted.op, current))
        found = await self._backend.look_up(wanted.key, wanted.job_id)
        return await self.ask(ev.Loaded(wanted.op, found))

    def abandon(self, op: int) -> None:
        """Tell the table that nobody waits for ``op``; one that has ended is left alone."""
        self._handle(ev.Abandoned(op))

    def discard(self, stage: "Stage | asyncio.Future[Staged]") -> None:
        """Forget a body that is not handed to the table, whether or not it is being finished."""
        self._spawn(self._discard_stage(stage))

    def discard_staged(self, staged: Staged) -> None:
        """Forget a whole body that is not handed to the table."""
        self._spawn(self._backend.discard(staged))

    def sweep(self) -> None:
        """Take away what is past its retention, unless that is being done already."""
        if not self._sweeping:
            self._sweeping = True
            self._handle(ev.SweepDue())

    async def close(self) -> None:
        """Return when every effect is performed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # ---- effects ----

    def _handle(self, event: ev.Event) -> None:
        for effect in self.table.handle(event, self._clock_ms()):
            if isinstance(effect, ev.Store):
                self._spawn(self._store(effect))
            elif isinstance(effect, ev.Discard):
                self._spawn(self._backend.discard(effect.staged))
            elif isinstance(effect, ev.Sweep):
                self._spawn(self._sweep(effect))
            else:
                waiting = self._waiting.get(effect.op)
                if waiting is not None and not waiting.done():
                    waiting.set_result(effect)

    async def _store(self, effect: ev.Store) -> None:
        try:
            await self._backend.commit(effect.changes)
        except StoreFailed as error:
            self._log.error("store_failed", error=error)
            self._handle(ev.StoreFailed(effect.batch, str(error)))
        else:
            self._handle(ev.Stored(effect.batch))

    async def _sweep(self, effect: ev.Sweep) -> None:
        more = False
        try:
            swept = await self._backend.sweep(effect.cutoffs, effect.limit)
            more = swept.more
        except StoreFailed as error:
            self._log.error("sweep_failed", error=error)  # the next one tries again
            return
        finally:
            self._sweeping = more
        self._handle(ev.SweepDone(swept))

    async def _discard_stage(self, stage: "Stage | asyncio.Future[Staged]") -> None:
        if not isinstance(stage, asyncio.Future):
            await stage.discard()
            return
        try:
            staged = await stage
        except StoreFailed:
            return  # it has left nothing behind
        await self._backend.discard(staged)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("effect_failed", error=error)
