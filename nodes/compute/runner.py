"""The job table at work: carries out its effects and brings it what happens.

Parsing stands in the service, deciding in the table, doing here: programs to the back end, rows to
the store, output to files, changes to subscribers, answers to requests.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.backends.base import Backend, Execution, Task, TaskEnd
from alpyne_grid.nodes.compute.blobs import BlobStore
from alpyne_grid.nodes.compute.job import Ending, IllegalMove, Job, Now
from alpyne_grid.nodes.compute.job_book import NO_RESULT
from alpyne_grid.nodes.compute.job_store import JobStore
from alpyne_grid.nodes.compute.job_table import JobTable
from alpyne_grid.nodes.compute.output import OutputStore
from alpyne_grid.nodes.compute.push import Pusher
from alpyne_grid.nodes.compute.results import ResultFiles
from alpyne_grid.wire import Log
from alpyne_grid.wire.log import place_of

from alpyne_proto.messages.compute import Cause, JobAnswer, JobForm, JobState, SettleRow

OUTPUT_MAX = 16 << 20  # bytes of stdout and stderr, where a job names no limit
RESULT_MAX = 1 << 30  # bytes of a result, likewise
ENDS_DELAY_S = 0.004  # for ends of jobs to share a commit
TIMER_SLACK_S = 0.05  # by which something may be late because a timer is set already


@dataclass(slots=True)
class Stores:
    """Where a node keeps what belongs to jobs. ``work``: the folder of jobs' working folders."""

    jobs: JobStore
    blobs: BlobStore
    outputs: OutputStore
    results: ResultFiles
    work: Path


class JobRunner:
    """Table, stores, back end and subscribers of one node; also the back end's sink."""

    def __init__(
        self, table: JobTable, stores: Stores, backend: Backend, pusher: Pusher, log: Log
    ) -> None:
        self.table = table
        self.store_error = ""  # why the store fails; empty while it does not
        self.when_started: Callable[[], None] = lambda: None  # called with every job that starts
        self._stores = stores
        self._no_folder = stores.work / "none"  # a path costs more to make than to share
        self._backend = backend
        self._pusher = pusher
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._events: deque[ev.Event] = deque()
        self._handling = False
        self._closing = False
        self._requests: dict[int, Callable[..., None]] = {}
        self._next_request = 1
        self._timer: asyncio.TimerHandle | None = None
        self._ends: list[ev.Store] = []  # wait to be written together
        self._ends_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._perform: dict[type, Callable[[Any], None]] = {
            ev.Store: self._store,
            ev.Answer: self._answer,
            ev.Confirm: self._confirm,
            ev.Refuse: self._refuse,
            ev.StartTask: self._start,
            ev.CancelTask: lambda effect: backend.cancel(effect.execution),
            ev.SuspendTask: lambda effect: backend.suspend(effect.execution),
            ev.ResumeTask: lambda effect: backend.resume(effect.execution),
            ev.Publish: self._publish,
            ev.DropFiles: self._drop_files,
        }

    # ---- what happens ----

    def submit(
        self,
        account: bytes,
        jobs: tuple[ev.NewJob, ...],
        room_bytes: int | None,
        answer: Callable[[tuple[JobAnswer, ...]], None],
    ) -> None:
        """Submit ``jobs``; ``answer`` is called once all that it accepts is durable."""
        self.handle(ev.JobsSubmitted(self._await(answer), account, jobs, room_bytes))

    def settle(
        self, account: bytes, rows: tuple[SettleRow, ...], done: Callable[[ev.Refuse | None], None]
    ) -> None:
        """Settle results; ``done`` is called once the marks are durable, or were refused."""
        self.handle(ev.JobsSettled(self._await(done), account, rows))

    def handle(self, *events: ev.Event) -> None:
        """Bring ``events`` to the table and carry out what follows.

        An event that comes while another one's effects are carried out waits for them.
        """
        self._events.extend(events)
        if self._handling:
            return
        self._handling = True
        now = self._now()
        try:
            while self._events:
                self._handle(self._events.popleft(), now)
        finally:
            self._handling = False
        self._pusher.flush()
        self._rearm(now)
        if self._pusher.wants_load:
            self._pusher.load_changed()

    def _handle(self, event: ev.Event, now: Now) -> None:
        try:
            effects = self.table.handle(event, now)
        except IllegalMove as error:  # a defect of this node; the other jobs go on
            self._log.error("illegal_move", error=error, on=type(event).__name__)
            return
        for effect in effects:
            try:
                self._perform[type(effect)](effect)
            except Exception as error:  # noqa: BLE001 - one effect's failure must not lose others
                self._log.error(
                    "effect_failed", error=error, at=place_of(error), effect=type(effect).__name__
                )

    def close(self) -> None:
        """Take nothing more from the back end: what it ends now runs again at the next start."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def flushed(self) -> None:
        """Return once no result is on its way to the disk, and no answer to a peer."""
        self._flush_ends()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._flush_ends()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` as a task that ``flushed`` waits for."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- the back end's sink ----

    def started(self, execution: Execution) -> None:
        """The program is about to run."""
        if not self._closing:
            self.handle(ev.ExecutionStarted(execution))

    def output(self, execution: Execution, descriptor: int, data: bytes) -> None:
        """The job wrote ``data``."""
        job = self.table.live(execution)
        if job is None or job.ending is not None or self._closing:
            return
        most = job.spec.output_bytes or OUTPUT_MAX
        try:
            if self._stores.outputs.append(
                job.account, job.number, job.attempt, descriptor, data, most
            ):
                return
            text = f"wrote more than {most} bytes to stdout and stderr; the rest was cut off"
            ending = Ending(JobState.LIMIT, Cause.OUTPUT, text)
        except OSError as error:
            text = f"the node could not store the job's output ({error.strerror or error})"
            ending = Ending(JobState.FAILED, Cause.NODE, text)
        self.handle(ev.ExecutionCondemned(execution, ending))

    def suspended(self, execution: Execution) -> None:
        """The execution stands still."""
        if not self._closing:
            self.handle(ev.ExecutionSuspended(execution))

    def resumed(self, execution: Execution) -> None:
        """The execution goes on."""
        if not self._closing:
            self.handle(ev.ExecutionResumed(execution))

    def ended(self, execution: Execution, end: TaskEnd) -> None:
        """The execution is over."""
        if self._closing:
            return
        result = self._stores.results.inline(end)
        if result is not None:
            self.handle(ev.ExecutionEnded(execution, end, result))
        else:
            self.in_background(self._keep_result(execution, end))

    async def _keep_result(self, execution: Execution, end: TaskEnd) -> None:
        """Make a large result durable, then tell the table."""
        job = self.table.live(execution)
        if job is None or (job.ending is not None and job.ending.state is not JobState.TIMEOUT):
            await self._stores.results.discard(end)
            self.handle(ev.ExecutionEnded(execution, end, NO_RESULT))
            return
        kept, result = await self._stores.results.keep(job.number, job.attempt, end)
        self.handle(ev.ExecutionEnded(execution, kept, result))

    # ---- effects ----

    def _start(self, effect: ev.StartTask) -> None:
        self.when_started()
        job, execution = effect.job, effect.job.execution
        task = self._task(job, effect.payload)
        if task is None:
            text = "the job's program is no longer in this node's store; submit the job again"
            end = TaskEnd(JobState.LOST, Cause.NODE, text)
            self._loop.call_soon(self.ended, execution, end)
            return
        try:
            self._backend.run(task, self)
        except OSError as error:
            text = f"the node could not start the job ({error.strerror or error})"
            self._loop.call_soon(self.ended, execution, TaskEnd(JobState.FAILED, Cause.NODE, text))

    def _task(self, job: Job, payload: bytes | None) -> Task | None:
        """Return what the back end needs; None where the program or its modules are gone."""
        spec, blobs = job.spec, self._stores.blobs
        program: bytes | Path | None = payload
        bundle = None
        if spec.payload_sha256 or spec.bundle:
            named = [sha256 for sha256 in (spec.payload_sha256, spec.bundle) if sha256]
            if blobs.missing(job.account, named):
                return None
            if spec.payload_sha256:
                program = blobs.path(job.account, spec.payload_sha256)
            if spec.bundle:
                bundle = blobs.path(job.account, spec.bundle)
        if program is None:
            program = self._stores.jobs.payload(job)
            if program is None:
                return None
        folder = self._no_folder
        if spec.form is JobForm.COMMAND:
            folder = self._stores.work / f"{job.number}.{job.attempt}"
        return Task(
            job.execution,
            spec.form,
            spec.codec,
            folder,
            program,
            bundle,
            spec.bundle,
            spec.python,
            spec.cpus,
            spec.memory_bytes,
            spec.timeout_ms,
            spec.output_bytes or OUTPUT_MAX,
            spec.result_bytes or RESULT_MAX,
            spec.tickets,
            spec.data_nodes,
            spec.processes,
            spec.disk_bytes,
            spec.network,
            spec.image,
        )

    def _store(self, effect: ev.Store) -> None:
        if not (effect.writes and type(effect.writes[0]) is ev.JobFinished):
            self._flush_ends()
            self._write([effect])
            return
        printed = [
            (write.number, write.attempt)
            for write in effect.writes
            if type(write) is ev.JobFinished and self._stores.outputs.has(write.number)
        ]
        if printed:
            self.in_background(self._store_behind_output(effect, printed))
            return
        # Nobody waits for the end to be stored, for the result is on its way already: a little
        # later it shares a commit with other ends, or with the next submission.
        self._ends.append(effect)
        if self._ends_timer is None:
            self._ends_timer = self._loop.call_later(ENDS_DELAY_S, self._flush_ends)

    def _flush_ends(self) -> None:
        if self._ends_timer is not None:
            self._ends_timer.cancel()
            self._ends_timer = None
        if self._ends:
            ends, self._ends = self._ends, []
            self._write(ends)

    async def _store_behind_output(self, effect: ev.Store, printed: list[tuple[int, int]]) -> None:
        """Flush output before the end of its job is stored: who sees the end sees all of it."""
        for number, attempt in printed:
            try:
                await asyncio.to_thread(self._stores.outputs.flush, number, attempt)
            except OSError as error:  # the result is worth more than the output
                self._log.error("output_not_flushed", error=error)
        self._write([effect])

    def _write(self, effects: list[ev.Store]) -> None:
        """Write effects in one batch; where it is refused, each counts as refused."""

        def done(error: BaseException | None) -> None:
            if error is None:
                self.store_error = ""
                self.handle(*[ev.BatchStored(effect.batch) for effect in effects])
            else:
                self.store_error = str(error)
                self._log.error("store_failed", error=error)
                self.handle(*[ev.BatchFailed(effect.batch, str(error)) for effect in effects])

        self._stores.jobs.write([write for effect in effects for write in effect.writes], done)

    def _publish(self, effect: ev.Publish) -> None:
        job = effect.job
        if job.finished:
            self._stores.outputs.end(job.number, job.attempt)
        self._pusher.publish(job)
        if job.finished:  # it leaves before anything is written, for which nobody waits
            self._pusher.flush()

    def _drop_files(self, effect: ev.DropFiles) -> None:
        self._stores.outputs.drop(effect.numbers)
        self._stores.results.drop(effect.numbers)

    def _answer(self, effect: ev.Answer) -> None:
        self._requests.pop(effect.request)(effect.answers)

    def _confirm(self, effect: ev.Confirm) -> None:
        self._requests.pop(effect.request)(None)

    def _refuse(self, effect: ev.Refuse) -> None:
        self._requests.pop(effect.request)(effect)

    # ---- parts ----

    def _await(self, callback: Callable[..., None]) -> int:
        number = self._next_request
        self._next_request += 1
        self._requests[number] = callback
        return number

    def _now(self) -> Now:
        return Now(self._loop.time(), time.time_ns() // 1_000_000)

    def _rearm(self, now: Now) -> None:
        """Have the table called when it next wants to be; an earlier call does no harm."""
        timer = self._timer
        if timer is not None and timer.when() <= now.monotonic_s + TIMER_SLACK_S:
            return
        due_s = self.table.next_due_s(now)
        if due_s is None or self._closing:
            return
        if timer is not None:
            if timer.when() <= due_s:
                return
            timer.cancel()
        # A timer much further away than this would overflow the clock of some event loops.
        self._timer = self._loop.call_at(min(due_s, now.monotonic_s + 86_400), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.handle(ev.TimePassed())
