"""Jobs that the program wants to pause: the wish outlives their node, its restart and a move.

Interrupts have no answers and may be lost with their connection, so a wish is told again whenever
the node may not know it: when it takes the job, begins a new attempt, or is back.
"""

from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.grid_jobs import GridJob, Phase
from alpyne_grid.manager.grid_state import GridState

from alpyne_proto.messages.compute import JobEvent, JobState

_STARTED = (Phase.ACCEPTED, Phase.RUNNING)


class GridPauses(GridState):
    """The handlers of what the program wants to pause."""

    def _suspend_asked(self, event: g.SuspendAsked, now: float) -> None:
        self._wish(event.job_id, pause=True)

    def _resume_asked(self, event: g.ResumeAsked, now: float) -> None:
        self._wish(event.job_id, pause=False)

    def _wish(self, job_id: bytes, *, pause: bool) -> None:
        job = self.jobs.get(job_id)
        if job is not None:
            job.pause = pause
            if pause:  # an end of an earlier pause, still on its way, does not end this one
                job.heard = JobState.QUEUED
            self._tell_pause(job)
            # SENT: an interrupt would overtake the submission; it follows the node's answer.

    def _tell_pause(self, job: GridJob) -> None:
        """Tell the job's node what is wanted, where it has the job and anything is."""
        if job.pause is None or not job.answered or job.node is None or job.phase not in _STARTED:
            return
        order = g.Suspend if job.pause else g.Resume
        self._do(order(job.node, job.plan.job_id))

    def _heard_of(self, job: GridJob, row: JobEvent) -> None:
        """Take the state of an execution that goes on."""
        if row.attempt != job.attempt:  # after a restart its node knows of no pause
            job.attempt = row.attempt
            if job.pause:
                self._tell_pause(job)
        elif row.state is JobState.RUNNING and job.heard is JobState.SUSPENDED:
            job.pause = None  # done, or somebody else has resumed it
        job.heard = row.state
