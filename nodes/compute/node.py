"""ComputeNode: host, store, table, back end and service put together, started and ended."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpyne_grid.nodes.backends import check_options
from alpyne_grid.nodes.compute import benchmark
from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.attributes import (
    as_rows,
    disk_free_bytes,
    load_per_core,
    make_offer,
    memory_free_bytes,
)
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.compute.backends.find import find_backend
from alpyne_grid.nodes.compute.blobs import BlobStore
from alpyne_grid.nodes.compute.job_store import SCHEMA, JobStore
from alpyne_grid.nodes.compute.job_table import JobTable
from alpyne_grid.nodes.compute.objects import ObjectService, make_objects
from alpyne_grid.nodes.compute.output import OutputStore
from alpyne_grid.nodes.compute.push import Pusher
from alpyne_grid.nodes.compute.results import ResultFiles
from alpyne_grid.nodes.compute.runner import JobRunner, Stores
from alpyne_grid.nodes.compute.service import ComputeService
from alpyne_grid.nodes.config import NodeConfig, Registration
from alpyne_grid.nodes.errors import StateError
from alpyne_grid.nodes.host import NodeHost
from alpyne_grid.wire import Log, Request

from alpyne_grid.durable import sync_folder
from alpyne_proto.address import Address
from alpyne_proto.messages.access import GetStatus, NodeStatus
from alpyne_proto.messages.compute import LoadEvent
from alpyne_proto.messages.hello import NodeKind

TICK_S = 5.0  # between two looks at load and idleness
TICKS_PER_SWEEP = 720  # between two sweeps for unused blobs: an hour
SEQUENCES_PER_START = 1 << 40  # event numbers that one run of the daemon may use


@dataclass(slots=True)
class _Parts:
    """What a started node is made of."""

    backend: Backend
    objects: ObjectService
    stores: Stores
    table: JobTable
    pusher: Pusher
    runner: JobRunner
    service: ComputeService


class ComputeNode:
    """A compute node, made of its configuration; ``start`` and ``close`` are its life."""

    def __init__(self, config: NodeConfig, *, confined: bool = False) -> None:
        """``confined``: the whole process is the node's, which gives up what it needs no more."""
        self._config = config
        self._confined = confined
        self._slots = config.slots or _cores()
        self._log = Log("compute")
        self._host = NodeHost(config)
        self._score = benchmark.Score(0.0, 0.0, True)
        self._parts: _Parts | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._measuring: asyncio.Task[None] | None = None
        self._idle_ticks = 0
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> Address:
        """The address to hand out."""
        return self._host.address

    async def check(self) -> str:
        """Say with what it would run jobs, without starting. Raises AlpyneError or OSError."""
        with tempfile.TemporaryDirectory(prefix="alpyne-check-") as folder:
            return await self._make_backend(Path(folder), bytes(16), None).check()

    async def start(self) -> None:
        """Recover what an earlier daemon left, then serve. Raises AlpyneError or OSError."""
        await self._host.open(SCHEMA)
        try:
            config, state = self._config, self._host.state
            objects = make_objects(state.identity, host_label=config.host_label)
            folder = state.path / "backend" / config.backend
            backend = self._make_backend(folder, self._host.boot_id, objects)
            reaped = await backend.reap()
            if reaped:
                self._log.warning("reaped", processes=reaped)
            await backend.start()
            self._warn_of_no_memory_limit(backend)
            parts = self._parts = self._assemble(backend, objects)
            await self._restore(parts)
            if self._confined:
                backend.confine()
            await self._host.serve()
        except BaseException:
            await self.close()
            raise
        backend.warm(self._config.owners[0], self._slots)
        self._tick()

    async def close(self) -> None:
        """End in order; jobs that run now run again at the next start, those that wait as well."""
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        parts = self._parts
        if parts is not None:
            parts.runner.handle(ev.SlotsChanged(0))
            parts.runner.close()
            parts.pusher.close()
        await self._host.stop_serving()
        if parts is not None:
            await parts.backend.close()
            await parts.objects.close()
            await parts.runner.flushed()
            parts.stores.outputs.close()
        await self._host.close()

    def _make_backend(self, folder: Path, boot_id: bytes, objects: ObjectService | None) -> Backend:
        """Return the back end that is configured, not started; ConfigError where it cannot be."""
        config = self._config
        factory = find_backend(config.backend)
        check_options(config.backend, factory, config.options)
        backend = factory(BackendSetup(folder, boot_id, objects, config.options, self._slots))
        config.check_isolation(backend.level)
        return backend

    def _warn_of_no_memory_limit(self, backend: Backend) -> None:
        config = self._config
        serves_others = config.registration is not Registration.OWNERS
        if backend.level and serves_others and "job-memory" not in config.options:
            self._log.warning(
                "no_memory_limit",
                text="jobs of others that ask for no memory limit get none; set one by "
                "--option job-memory=SIZE, for instance 2GiB",
            )

    def _assemble(self, backend: Backend, objects: ObjectService) -> _Parts:
        host, config = self._host, self._config
        folder = host.state.path
        self._score = benchmark.cached(folder / "benchmark.json") or benchmark.estimate()
        stores = Stores(
            JobStore(host.store),
            BlobStore(folder / "blobs"),
            OutputStore(folder / "output"),
            ResultFiles(folder / "results"),
            folder / "work",
        )
        table = JobTable(
            make_offer(
                backend, slots=self._slots, host_label=config.host_label, labels=config.labels
            ),
            slots=self._slots,
            sequence_base=host.state.generation * SEQUENCES_PER_START,
            level=backend.level,
        )
        pusher = Pusher(table, stores.jobs, level=backend.level, load=self._load_event)
        runner = JobRunner(table, stores, backend, pusher, self._log)
        runner.when_started = self._stop_measuring
        service = ComputeService(runner, stores, pusher, host.access.quota_of)
        host.handle(service.handlers())
        host.handle({GetStatus: self._status})
        host.when_interrupted(service.on_interrupt)
        host.when_disconnected(pusher.forget)
        host.hooks.account_revoked = self._revoke
        host.hooks.used_bytes = service.kept
        return _Parts(backend, objects, stores, table, pusher, runner, service)

    async def _restore(self, parts: _Parts) -> None:
        """Take over the jobs of earlier daemons; what they ran has been ended already."""
        stores, runner = parts.stores, parts.runner
        # What killed jobs left; their processes are gone.
        await asyncio.to_thread(shutil.rmtree, stores.work, ignore_errors=True)
        jobs = await stores.jobs.load()
        stores.blobs.open()
        stores.outputs.open({(j.number, j.attempt): j.account for j in jobs if j.finished})
        stores.results.open(
            {j.number: j.attempt for j in jobs if j.result is not None and not j.result.in_row}
        )
        await asyncio.to_thread(sync_folder, self._host.state.path)  # the names of new folders
        runner.handle(ev.JobsRestored(jobs))
        for account in {job.account for job in jobs}:
            if not self._host.access.serves(account):
                runner.handle(ev.AccountRevoked(account))
        await self._host.store.commit(())  # behind the new attempts, whose fate is known by then
        if runner.store_error:
            raise StateError(
                f"state folder {self._config.state}: its jobs cannot be taken over "
                f"({runner.store_error}); make room on the disk and start the node again"
            )
        if jobs:
            to_run = sum(not job.finished for job in jobs)
            self._log.info("restored", jobs=len(jobs), to_run=to_run)

    # ---- while it serves ----

    def _revoke(self, account: bytes) -> None:
        if self._parts is not None:
            self._parts.runner.handle(ev.AccountRevoked(account))
            self._parts.backend.warm(account, 0)

    def _load_event(self) -> LoadEvent:
        assert self._parts is not None, "nobody subscribes before the node is put together"
        counts = self._parts.table.counts()
        return LoadEvent(
            counts.slots,
            counts.busy_slots,
            counts.queued,
            load_per_core(),
            self._score.one,
            self._score.estimated,
        )

    def _status(self, request: Request) -> None:
        assert self._parts is not None, "nobody asks before the node is put together"
        parts = self._parts
        account = request.connection.account
        counts = parts.table.counts()
        request.reply_nowait(
            NodeStatus(
                NodeKind.COMPUTE,
                self._score.one,
                self._score.all,
                self._score.estimated,
                counts.slots,
                counts.busy_slots,
                counts.queued,
                load_per_core(),
                memory_free_bytes(),
                disk_free_bytes(self._config.state),
                parts.service.kept(account),
                self._host.access.quota_of(account),
                as_rows(parts.table.offer.attributes, self._score.one),
                parts.runner.store_error.encode()[:512].decode(errors="ignore"),
                uptime_s=self._host.uptime_s,
            )
        )

    def _tick(self) -> None:
        parts = self._parts
        assert parts is not None, "ticks begin when the node is put together"
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._ticks += 1
        parts.pusher.load_changed()
        is_idle = parts.table.idle and load_per_core() < benchmark.IDLE_LOAD
        self._idle_ticks = self._idle_ticks + 1 if is_idle else 0
        if self._score.estimated and self._idle_ticks * TICK_S > benchmark.IDLE_S:
            self._idle_ticks = 0
            self._measuring = self._in_background(self._measure())
        if self._ticks % TICKS_PER_SWEEP == 0:
            self._in_background(parts.stores.blobs.drop_unused(parts.service.blobs_in_use))

    async def _measure(self) -> None:
        """Replace the estimated score; a job that starts meanwhile cancels this."""
        try:
            self._score = await benchmark.run()
            benchmark.save(self._host.state.path / "benchmark.json", self._score)
        except OSError as error:
            self._log.warning("benchmark_failed", error=error)
        else:
            self._log.info("measured", one=self._score.one, all=self._score.all)
        finally:
            self._measuring = None

    def _stop_measuring(self) -> None:
        if self._measuring is not None:
            self._measuring.cancel()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _cores() -> int:
    with contextlib.suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
