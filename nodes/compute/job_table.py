"""The job table: which jobs a node has, which run next, what ends them. No I/O.

``handle(event, now)`` returns effects, to be carried out in their order. Persistence is an event
too: what a batch changes is in force at once, an acknowledgement is an effect of BatchStored, and
BatchFailed restores what was before. A job's first attempt starts without waiting for the store;
every later attempt, and an allocation that replaces another, is durable before it starts.
"""

from collections.abc import Callable
from typing import Any

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import Bounds, Offer
from alpyne_grid.nodes.compute.job import Ending, Job, Now, Result, Settled, move
from alpyne_grid.nodes.compute.job_book import (
    CANCELLED,
    NO_RESULT,
    REVOKED,
    Dropping,
    Finishing,
    Restoring,
    Settling,
    Submission,
)
from alpyne_grid.nodes.compute.suspensions import Suspensions

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import Cause, JobState

RETRY_STORE_S = 5.0  # after a result could not be stored; it is kept in memory until then


class JobTable(Suspensions):
    """The jobs of one node.

    ``offer``: what the node has. ``slots``: how many of its places are in use. ``bounds``: how much
    it takes. ``sequence_base``: event numbers begin above it; it must be higher than any number
    that an earlier daemon may have used, durable or not. ``level``: the back end's isolation level.
    """

    def __init__(
        self,
        offer: Offer,
        *,
        slots: int,
        bounds: Bounds | None = None,
        sequence_base: int = 0,
        level: int = 0,
    ) -> None:
        super().__init__(
            offer,
            slots=slots,
            bounds=bounds or Bounds(),
            sequence_base=sequence_base,
            level=level,
        )
        self._handlers: dict[type, Callable[[Any, Now], list[ev.Effect]]] = {
            ev.JobsSubmitted: self._on_submitted,
            ev.BatchStored: self._on_stored,
            ev.BatchFailed: self._on_failed,
            ev.ExecutionStarted: self._on_started,
            ev.ExecutionEnded: self._on_ended,
            ev.ExecutionCondemned: self._on_condemned,
            ev.ExecutionSuspended: self._on_suspended,
            ev.ExecutionResumed: self._on_resumed,
            ev.JobsSuspended: self._on_jobs_suspended,
            ev.JobsResumed: self._on_jobs_resumed,
            ev.JobsCancelled: self._on_cancelled,
            ev.JobsSettled: self._on_settled,
            ev.AccountRevoked: self._on_revoked,
            ev.SlotsChanged: self._on_slots,
            ev.JobsRestored: self._on_restored,
            ev.TimePassed: self._on_time,
        }

    def handle(self, event: ev.Event, now: Now) -> list[ev.Effect]:
        """Take ``event`` and return what is to be done, in order. IllegalMove is a defect."""
        return self._handlers[type(event)](event, now)

    # ---- the store's word ----

    def _on_stored(self, event: ev.BatchStored, now: Now) -> list[ev.Effect]:
        batch = self._s.batches.pop(event.batch)
        if isinstance(batch, Submission):
            return self._submission_stored(batch, now)
        if isinstance(batch, Finishing):
            if batch.job.result is not None:
                batch.job.result = batch.job.result._replace(data=b"")
            return []
        if isinstance(batch, Settling):
            return [ev.Confirm(batch.request), *self._drop(self._kept.surplus())]
        if isinstance(batch, Dropping):
            return [ev.DropFiles(tuple(job.number for job in batch.jobs))]
        return self._restoring_stored(batch, now)

    def _on_failed(self, event: ev.BatchFailed, now: Now) -> list[ev.Effect]:
        batch = self._s.batches.pop(event.batch)
        if isinstance(batch, Submission):
            return self._submission_failed(batch, event.text)
        if isinstance(batch, Finishing):
            # The execution cannot be taken back; its result waits here for the store.
            self._s.unsaved.append(batch)
            self._s.unsaved_due_s = now.monotonic_s + RETRY_STORE_S
        elif isinstance(batch, Settling):
            for job, mark, at_ms in reversed(batch.before):
                self._mark(job, mark, at_ms)
            return [ev.Refuse(batch.request, ErrorCode.STORE_FAILED, event.text)]
        elif isinstance(batch, Dropping):
            self._undrop(batch.jobs)
        return []

    def _undrop(self, jobs: list[Job]) -> None:
        """Take back jobs whose rows could not be dropped, unless a newer allocation is there."""
        for job in jobs:
            if self._ledger(job.account).jobs.setdefault(job.spec.job_id, job) is job:
                self._count(job)
                self._kept.keep(job)

    # ---- executions ----

    def _on_condemned(self, event: ev.ExecutionCondemned, now: Now) -> list[ev.Effect]:
        job = self._s.live.get(event.execution)
        return self._condemn(job, event.ending) if job is not None else []

    def _on_ended(self, event: ev.ExecutionEnded, now: Now) -> list[ev.Effect]:
        job = self._s.live.pop(event.execution, None)
        if job is None:
            return []
        self._places.give_back(job)
        key = (job.account, job.spec.job_id)
        if self._s.discarded.get(key) is job:
            return self._end_discarded(job, now)
        if job.successor is not None and job.successor.stored:
            move(job, JobState.KILLED)
            succeeded = self._succeed(job)
            return [*self._start_ready(now), *succeeded]
        # The next one starts first: its worker is idle, and what follows can wait.
        started = self._start_ready(now)
        ending, result = _verdict(job, event)
        return [*started, *self._finish(job, ending, event.end, result, now)]

    def _end_discarded(self, job: Job, now: Now) -> list[ev.Effect]:
        """Forget a job that the store had refused; the same one may have been submitted again."""
        del self._s.discarded[job.account, job.spec.job_id]
        move(job, JobState.KILLED)
        again, job.successor = job.successor, None
        if again is not None and again.state is JobState.QUEUED:
            self._queue.put(again)
        return self._start_ready(now)

    # ---- what accounts and the node want ----

    def _on_cancelled(self, event: ev.JobsCancelled, now: Now) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        for job_id in event.job_ids:
            job = self.job(event.account, job_id)
            if job is not None:
                effects += self._end(job, CANCELLED, now)
        return [*effects, *self._start_ready(now)]

    def _on_revoked(self, event: ev.AccountRevoked, now: Now) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        for job in list(self.jobs(event.account)):
            effects += self._end(job, REVOKED, now)
            if job.predecessor is not None:
                effects += self._end(job.predecessor, REVOKED, now)
        return [*effects, *self._start_ready(now)]

    def _on_slots(self, event: ev.SlotsChanged, now: Now) -> list[ev.Effect]:
        self._places.slots = event.slots
        return self._start_ready(now)

    def _on_time(self, event: ev.TimePassed, now: Now) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        for job in self._announcements.due(now):
            effects += self._publish(job)
        for job in self._running.run_out(now):
            text = f"ran longer than its limit of {job.spec.timeout_ms / 1000:g} s"
            effects += self._condemn(job, Ending(JobState.TIMEOUT, Cause.WALL_TIME, text))
        if self._s.unsaved and self._s.unsaved_due_s <= now.monotonic_s:
            unsaved, self._s.unsaved = self._s.unsaved, []
            effects += [self._store(batch, [batch.write]) for batch in unsaved]
        return [*effects, *self._drop(self._kept.gone(now)), *self._start_ready(now)]

    # ---- settling ----

    def _on_settled(self, event: ev.JobsSettled, now: Now) -> list[ev.Effect]:
        settling = Settling(event.request, [])
        writes: list[ev.Write] = []
        for row in event.rows:
            job = self.job(event.account, row.job_id)
            if job is None or not job.finished:
                continue
            same = (row.allocation, row.attempt) == (job.spec.allocation, job.attempt)
            mark = Settled.DELIVERED if same else Settled.SUPERSEDED
            if job.settled in (mark, Settled.DELIVERED):
                continue
            settling.before.append((job, job.settled, job.settled_at_ms))
            self._mark(job, mark, now.wall_ms)
            writes.append(ev.JobMarked(job.number, mark, now.wall_ms))
        # Repeated marks may still be on their way to the disk: they wait for it like new ones.
        return [self._store(settling, writes)]

    def _mark(self, job: Job, mark: Settled, at_ms: int) -> None:
        ledger = self._ledger(job.account)
        ledger.unsettled += (mark is Settled.NO) - (job.settled is Settled.NO)
        job.settled = mark
        job.settled_at_ms = at_ms
        self._kept.keep(job)

    # ---- restart ----

    def _on_restored(self, event: ev.JobsRestored, now: Now) -> list[ev.Effect]:
        waiting = []
        for job in event.jobs:
            job.stored = True
            ledger = self._ledger(job.account)
            ledger.jobs[job.spec.job_id] = job
            self._count(job)
            self._s.next_number = max(self._s.next_number, job.number + 1)
            if job.finished:
                ledger.sequence = max(ledger.sequence, job.sequence)
                self._kept.keep(job)
            else:
                job.attempt += 1
                self._s.queued += 1
                waiting.append(job)
        if not waiting:
            return []
        return [self._store(Restoring(waiting), [ev.AttemptsRaised()])]

    def _restoring_stored(self, batch: Restoring, now: Now) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        for job in batch.jobs:
            if job.state is JobState.QUEUED:
                self._queue.put(job)
                effects += self._publish(job)
        return [*effects, *self._start_ready(now)]


def _verdict(job: Job, event: ev.ExecutionEnded) -> tuple[Ending, Result]:
    """Return as what ``job`` has ended, and its result."""
    end, wanted = event.end, job.ending
    # Done in the moment in which its time was over is done; a cancelled job is not wanted any more.
    if wanted is None or (wanted.state is JobState.TIMEOUT and end.state is JobState.DONE):
        return Ending(end.state, end.cause, end.text), event.result
    return wanted, NO_RESULT
