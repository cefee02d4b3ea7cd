"""How jobs come into the table: admission, the store's word, and higher allocations."""

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.admission import ROW_BYTES, misfit, overfull, refuse
from alpyne_grid.nodes.compute.job import Ending, Job, Now
from alpyne_grid.nodes.compute.job_book import CANCELLED, Dropping, JobBook, Submission

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import Cause, JobAnswer, JobState, Verdict

RETRY_MS = 1000


class Submissions(JobBook):
    """The handlers of submissions."""

    def _on_submitted(self, event: ev.JobsSubmitted, now: Now) -> list[ev.Effect]:
        answers: list[JobAnswer | Job] = []
        added: list[Job] = []
        writes: list[ev.Write] = []
        for new in event.jobs:
            answer = self._admit(event, new)
            if answer is None:
                job = self._add(event.account, new, now)
                added.append(job)
                answer = job
                writes.append(
                    ev.JobAdded(job.number, job.account, job.spec, new.payload, now.wall_ms)
                )
            answers.append(answer)
        final = [answer for answer in answers if isinstance(answer, JobAnswer)]
        if len(final) == len(answers):
            return [ev.Answer(event.request, tuple(final))]
        # The worker gets its program before the disk gets the row: both take their time.
        started = self._start_ready(now)
        return [*started, self._store(Submission(event.request, answers, added), writes)]

    def _admit(self, event: ev.JobsSubmitted, new: ev.NewJob) -> JobAnswer | Job | None:
        """Return the answer, the known Job that it waits for, or None: take the job."""
        spec = new.spec
        ledger = self._ledger(event.account)
        known = ledger.jobs.get(spec.job_id)
        if known is not None:
            if spec.allocation < known.spec.allocation:
                return JobAnswer(spec.job_id, Verdict.FENCED)
            if spec.allocation == known.spec.allocation:
                # Not durable yet: then this answer waits for the same commit.
                return JobAnswer(spec.job_id, Verdict.DUPLICATE) if known.stored else known
            if not known.stored or known.predecessor is not None:
                text = "an earlier allocation of this job is still being replaced; submit again"
                return refuse(
                    spec, ErrorCode.OVERLOADED, text, retryable=True, retry_after_ms=RETRY_MS
                )
        refusal = misfit(spec, new.payload, self.offer)
        if refusal is None and new.missing:
            return JobAnswer(spec.job_id, Verdict.NEED_BLOB, missing=new.missing)
        return refusal or overfull(
            spec,
            ledger,
            self._bounds,
            spec_bytes=self._s.spec_bytes,
            payload_size=len(new.payload),
            room_bytes=event.room_bytes,
        )

    def _add(self, account: bytes, new: ev.NewJob, now: Now) -> Job:
        jobs = self._ledger(account).jobs
        kept = len(new.payload) + ROW_BYTES
        number = self._s.next_number
        job = Job(number, account, new.spec, now.wall_ms, kept, payload=new.payload)
        self._s.next_number += 1
        job.predecessor = jobs.pop(new.spec.job_id, None)
        jobs[new.spec.job_id] = job
        self._count(job)
        self._s.queued += 1
        before = job.predecessor or self._s.discarded.get((account, new.spec.job_id))
        if before is None:
            self._queue.put(job)
        else:
            before.successor = job  # it waits until that one has ended
        return job

    # ---- the store's word ----

    def _submission_stored(self, batch: Submission, now: Now) -> list[ev.Effect]:
        replaced: list[ev.Effect] = []
        for job in batch.added:
            job.stored = True
            if self._s.payload_bytes > self._bounds.payload_bytes:
                self._release_payload(job)
            if job.predecessor is not None:
                replaced += self._retire(job.predecessor)
        return [self._answer(batch), *replaced, *self._start_ready(now)]

    def _submission_failed(self, batch: Submission, text: str) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        for job in batch.added:
            self._uncount(job)
            jobs = self._ledger(job.account).jobs
            del jobs[job.spec.job_id]
            if job.predecessor is not None:
                self._reinstate(job.predecessor)
                job.predecessor = None
            if job.state is JobState.QUEUED:
                self._leave_queue(job, JobState.KILLED)
            elif not job.finished:
                self._s.discarded[job.account, job.spec.job_id] = job
                effects += self._condemn(job, CANCELLED)
        return [self._answer(batch, text), *effects]

    def _reinstate(self, old: Job) -> None:
        """Put back a job whose successor was not stored."""
        old.successor = None
        self._ledger(old.account).jobs[old.spec.job_id] = old
        if old.finished:
            self._kept.keep(old)

    def _answer(self, batch: Submission, failure: str = "") -> ev.Answer:
        answers: list[JobAnswer] = []
        added = {id(job) for job in batch.added}
        for answer in batch.answers:
            if isinstance(answer, JobAnswer):
                answers.append(answer)
            elif answer.stored:
                verdict = Verdict.ACCEPTED if id(answer) in added else Verdict.DUPLICATE
                answers.append(JobAnswer(answer.spec.job_id, verdict))
                added.discard(id(answer))  # the same id again in one batch is a duplicate
            else:
                answers.append(
                    refuse(
                        answer.spec,
                        ErrorCode.STORE_FAILED,
                        failure or "the node could not store the job",
                        retryable=True,
                        retry_after_ms=RETRY_MS,
                    )
                )
        return ev.Answer(batch.request, tuple(answers))

    # ---- a higher allocation replaces a lower one ----

    def _retire(self, old: Job) -> list[ev.Effect]:
        """End ``old``, whose successor is durable now; the successor waits until it has ended."""
        if old.state is JobState.QUEUED:
            self._leave_queue(old, JobState.KILLED)
        if old.finished:
            return self._succeed(old)
        successor = old.successor
        assert successor is not None
        text = f"replaced by allocation {successor.spec.allocation}"
        return self._condemn(old, Ending(JobState.KILLED, Cause.CANCELLED, text))

    def _succeed(self, old: Job) -> list[ev.Effect]:
        """Let the successor of ``old``, which has ended, into the queue, and forget ``old``."""
        job, old.successor = old.successor, None
        assert job is not None
        job.predecessor = None
        self._uncount(old)
        if job.state is JobState.QUEUED:
            self._queue.put(job)
        return [self._store(Dropping([old]), [ev.JobsDropped((old.number,))])]
