"""What the job table holds, and the steps that its handlers share."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import Bounds, Offer, held_bytes
from alpyne_grid.nodes.compute.backends.base import Execution, TaskEnd
from alpyne_grid.nodes.compute.deadlines import Announcements, Retention, RunningTimes
from alpyne_grid.nodes.compute.job import Ending, Job, Now, Result, Settled, move
from alpyne_grid.nodes.compute.job_queue import Ledger, Places, RoundRobin

from alpyne_proto.codec import encode
from alpyne_proto.messages.compute import Cause, JobAnswer, JobEvent, JobState

UNSAVED_MAX = 64  # results that the store refused, before nothing more is started
NO_RESULT = Result(0, hashlib.sha256().digest(), True)
CANCELLED = Ending(JobState.KILLED, Cause.CANCELLED, "cancelled")
REVOKED = Ending(JobState.KILLED, Cause.REVOKED, "the account was revoked at this node")


@dataclass(slots=True)
class Submission:
    """A submission that is with the store.

    An answer that is a Job waits: the job was taken, or is known but not yet durable.
    """

    request: int
    answers: list[JobAnswer | Job]
    added: list[Job]


@dataclass(slots=True)
class Settling:
    """Marks that are with the store, and what stood before them."""

    request: int
    before: list[tuple[Job, Settled, int]]


@dataclass(slots=True)
class Finishing:
    """A result that is with the store."""

    job: Job
    write: ev.JobFinished


@dataclass(slots=True)
class Dropping:
    """Jobs whose rows the store is deleting."""

    jobs: list[Job]


@dataclass(slots=True)
class Restoring:
    """Jobs of an earlier daemon whose next attempt is with the store."""

    jobs: list[Job]


Batch = Submission | Settling | Finishing | Dropping | Restoring


@dataclass(frozen=True, slots=True)
class Counts:
    """What a load event tells."""

    slots: int
    busy_slots: int
    queued: int


@dataclass(slots=True)
class _State:
    ledgers: dict[bytes, Ledger] = field(default_factory=dict)
    live: dict[Execution, Job] = field(default_factory=dict)  # what the back end has
    discarded: dict[tuple[bytes, bytes], Job] = field(default_factory=dict)  # live, but not stored
    batches: dict[int, Batch] = field(default_factory=dict)  # what the store has
    unsaved: list[Finishing] = field(default_factory=list)  # what the store refused
    unsaved_due_s: float = 0.0
    queued: int = 0
    spec_bytes: int = 0
    payload_bytes: int = 0  # in memory
    next_batch: int = 1
    next_number: int = 1


class JobBook:
    """The state of the table, what may be asked of it, and the steps that its handlers share."""

    def __init__(
        self, offer: Offer, *, slots: int, bounds: Bounds, sequence_base: int, level: int
    ) -> None:
        self.offer = offer
        self._bounds = bounds
        self._sequence_base = sequence_base
        self._level = level
        self._places = Places(slots, offer.memory_bytes)
        self._queue = RoundRobin()
        self._announcements = Announcements()
        self._running = RunningTimes()
        self._kept = Retention(bounds)
        self._s = _State()

    # ---- asked from outside ----

    def next_due_s(self, now: Now) -> float | None:
        """Return when, on the monotonic clock, TimePassed is wanted; None for not at all."""
        due = [self._announcements.next_s(), self._running.next_s(), self._kept.next_s(now)]
        if self._s.unsaved:
            due.append(self._s.unsaved_due_s)
        return min((at for at in due if at is not None), default=None)

    def job(self, account: bytes, job_id: bytes) -> Job | None:
        """Return the account's job, or None for an unknown or foreign id."""
        ledger = self._s.ledgers.get(account)
        return ledger.jobs.get(job_id) if ledger else None

    def jobs(self, account: bytes) -> Iterable[Job]:
        """Return the account's jobs in the order of their submission."""
        ledger = self._s.ledgers.get(account)
        return ledger.jobs.values() if ledger else ()

    def all_jobs(self) -> Iterator[Job]:
        """Yield the jobs of all accounts, those included that are being replaced."""
        for ledger in self._s.ledgers.values():
            for job in ledger.jobs.values():
                yield job
                if job.predecessor is not None:
                    yield job.predecessor

    def live(self, execution: Execution) -> Job | None:
        """Return the job of an execution that the back end has, or None."""
        return self._s.live.get(execution)

    def sequence(self, account: bytes) -> int:
        """Return the number of the account's newest event."""
        ledger = self._s.ledgers.get(account)
        return ledger.sequence if ledger else self._sequence_base

    def bytes_kept(self, account: bytes) -> int:
        """Return the bytes of the account's payloads and results."""
        ledger = self._s.ledgers.get(account)
        return ledger.bytes_kept if ledger else 0

    def counts(self) -> Counts:
        """Return slots, busy slots and waiting jobs."""
        return Counts(self._places.slots, self._places.busy, self._s.queued)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._s.live and not self._s.queued

    # ---- steps ----

    def _start_ready(self, now: Now) -> list[ev.Effect]:
        """Start what there are places for."""
        started: list[ev.Effect] = []
        if len(self._s.unsaved) >= UNSAVED_MAX:
            return started
        while (job := self._queue.take(self._places)) is not None:
            self._leave_queue(job, JobState.STARTING)
            self._s.live[job.execution] = job
            started.append(ev.StartTask(job, job.payload))
            self._release_payload(job)
            self._announcements.watch(job, now)
        return started

    def _condemn(self, job: Job, ending: Ending) -> list[ev.Effect]:
        """Have the back end end ``job``; the first reason stands."""
        if job.ending is not None:
            return []
        job.ending = ending
        return [ev.CancelTask(job.execution)]

    def _end(self, job: Job, ending: Ending, now: Now) -> list[ev.Effect]:
        """End ``job`` wherever it stands; nothing where it has finished."""
        if job.finished:
            return []
        if job.state is JobState.QUEUED:
            return self._finish(job, ending, TaskEnd(ending.state), NO_RESULT, now)
        return self._condemn(job, ending)

    def _finish(
        self, job: Job, ending: Ending, end: TaskEnd, result: Result, now: Now
    ) -> list[ev.Effect]:
        if job.state is JobState.QUEUED:
            self._leave_queue(job, ending.state)
        else:
            move(job, ending.state)
        job.cause = ending.cause
        job.finished_at_ms = now.wall_ms
        job.result = result
        self._ledger(job.account).bytes_kept += result.size
        job.bytes_kept += result.size
        published = self._publish(job)
        job.end = encode(self._event(job, ending, end, result))
        self._release_spec(job)
        if job.spec.tickets or job.spec.data_nodes:
            job.spec = replace(job.spec, tickets=(), data_nodes=())
        self._kept.keep(job)
        write = ev.JobFinished(
            job.number,
            job.attempt,
            job.state,
            job.cause,
            job.sequence,
            now.wall_ms,
            job.end,
            result,
        )
        return [*published, self._store(Finishing(job, write), [write])]

    def _event(self, job: Job, ending: Ending, end: TaskEnd, result: Result) -> JobEvent:
        return JobEvent(
            job.sequence,
            job.spec.job_id,
            job.spec.allocation,
            job.attempt,
            ending.state,
            ending.cause,
            result.size,
            result.sha256,
            result.in_row,
            self._level,
            end.ended,
            end.left,
            end.exit_status,
            ending.text.encode()[:1024].decode(errors="ignore"),
            end.usage,
        )

    def _drop(self, jobs: list[Job]) -> list[ev.Effect]:
        """Forget finished ``jobs``, here and in the store.

        Not yet those that the store has not taken or that are being replaced.
        """
        may_go = []
        for job in jobs:
            if self.job(job.account, job.spec.job_id) is not job:
                continue
            if job.stored and job.predecessor is None:
                may_go.append(job)
            else:
                self._kept.keep(job)
        if not may_go:
            return []
        for job in may_go:
            self._uncount(job)
            del self._ledger(job.account).jobs[job.spec.job_id]
        dropped = ev.JobsDropped(tuple(job.number for job in may_go))
        return [self._store(Dropping(may_go), [dropped])]

    def _store(self, batch: Batch, writes: list[ev.Write]) -> ev.Store:
        number = self._s.next_batch
        self._s.next_batch += 1
        self._s.batches[number] = batch
        return ev.Store(number, tuple(writes))

    def _publish(self, job: Job) -> list[ev.Effect]:
        ledger = self._ledger(job.account)
        ledger.sequence += 1
        job.sequence = ledger.sequence
        job.announced = job.state
        return [ev.Publish(job)]

    def _leave_queue(self, job: Job, to: JobState) -> None:
        move(job, to)
        self._s.queued -= 1

    def _ledger(self, account: bytes) -> Ledger:
        ledger = self._s.ledgers.get(account)
        if ledger is None:
            ledger = self._s.ledgers[account] = Ledger(sequence=self._sequence_base)
        return ledger

    def _count(self, job: Job) -> None:
        ledger = self._ledger(job.account)
        ledger.bytes_kept += job.bytes_kept
        ledger.unsettled += job.settled is Settled.NO
        if not job.finished:
            job.spec_bytes = held_bytes(job.spec)
            self._s.spec_bytes += job.spec_bytes
            self._s.payload_bytes += len(job.payload or b"")

    def _uncount(self, job: Job) -> None:
        ledger = self._ledger(job.account)
        ledger.bytes_kept -= job.bytes_kept
        ledger.unsettled -= job.settled is Settled.NO
        self._release_spec(job)
        self._kept.release(job)

    def _release_spec(self, job: Job) -> None:
        self._s.spec_bytes -= job.spec_bytes
        job.spec_bytes = 0
        self._release_payload(job)

    def _release_payload(self, job: Job) -> None:
        self._s.payload_bytes -= len(job.payload or b"")
        job.payload = None
