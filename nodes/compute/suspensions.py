"""How jobs pause: who wants it, what the back end is told, and what it says has come of it.

A wish is kept with the job, an order goes to the back end when the first wish comes and when the
last one goes, and the state follows what the back end reports. Orders and reports come in the same
order, so that a job ends up as was wanted last.
"""

from collections.abc import Callable

from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.job import Job, Now, SuspendReason, move
from alpyne_grid.nodes.compute.submissions import Submissions

from alpyne_proto.messages.compute import JobState

_ORDERED = (JobState.RUNNING, JobState.SUSPENDED)  # before that, the order waits for the start


class Suspensions(Submissions):
    """The handlers of starts, pauses and what account holders want of them."""

    @property
    def can_suspend(self) -> bool:
        """Whether the back end can pause jobs at all."""
        return self.offer.attributes.get("suspend", "none") != "none"

    def _on_jobs_suspended(self, event: ev.JobsSuspended, now: Now) -> list[ev.Effect]:
        if not self.can_suspend:
            return []  # the offer says so: no manager should have asked
        return self._each(event, lambda job: self._want_pause(job, SuspendReason.MANAGER))

    def _on_jobs_resumed(self, event: ev.JobsResumed, now: Now) -> list[ev.Effect]:
        return self._each(event, lambda job: self._want_no_pause(job, SuspendReason.MANAGER))

    def _each(
        self,
        event: ev.JobsSuspended | ev.JobsResumed,
        order: Callable[[Job], list[ev.Effect]],
    ) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        for job_id in event.job_ids:
            job = self.job(event.account, job_id)
            if job is not None and not job.finished:
                effects += order(job)
        return effects

    def _want_pause(self, job: Job, reason: SuspendReason) -> list[ev.Effect]:
        is_first = not job.reasons
        job.reasons |= {reason}
        return self._suspend(job) if is_first else []

    def _want_no_pause(self, job: Job, reason: SuspendReason) -> list[ev.Effect]:
        if not job.reasons:
            return []
        job.reasons -= {reason}
        if job.reasons or job.state not in _ORDERED or job.ending is not None:
            return []
        return [ev.ResumeTask(job.execution)]

    def _suspend(self, job: Job) -> list[ev.Effect]:
        if job.state not in _ORDERED or job.ending is not None:
            return []
        return [ev.SuspendTask(job.execution)]

    # ---- what the back end reports ----

    def _on_started(self, event: ev.ExecutionStarted, now: Now) -> list[ev.Effect]:
        job = self._s.live.get(event.execution)
        if job is None:
            return []
        self._run(job, now)
        return self._suspend(job) if job.reasons else []

    def _on_suspended(self, event: ev.ExecutionSuspended, now: Now) -> list[ev.Effect]:
        job = self._s.live.get(event.execution)
        if job is None or job.state is not JobState.RUNNING:
            return []
        move(job, JobState.SUSPENDED)
        job.ran_s += now.monotonic_s - job.running_since_s
        return self._publish(job)

    def _on_resumed(self, event: ev.ExecutionResumed, now: Now) -> list[ev.Effect]:
        job = self._s.live.get(event.execution)
        if job is None or job.state is not JobState.SUSPENDED:
            return []
        self._run(job, now)
        return self._publish(job)

    def _run(self, job: Job, now: Now) -> None:
        move(job, JobState.RUNNING)
        job.running_since_s = now.monotonic_s
        self._running.watch(job)
        self._announcements.watch(job, now)
