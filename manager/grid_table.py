"""GridTable: what the manager knows of its jobs, as a pure core.

``handle(event, now)`` returns effects. The table places jobs on nodes, keeps pipelines full, moves
jobs whose node is lost, retries, cancels, and lets exactly one execution of a job settle: it takes
results of the newest allocation only, commits the execution in the journal, and delivers after
that. What finishes under an older allocation is *fenced*: counted, never delivered.

Source: spec/PROTOCOL.md, "Executions and fencing".
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.errors import Receipt
from alpyne_grid.manager.grid_jobs import GridJob, Phase, Trigger
from alpyne_grid.manager.grid_pauses import GridPauses
from alpyne_grid.manager.grid_state import FIRST, MOVES_MAX
from alpyne_grid.manager.placement import Node

from alpyne_proto.errors import ErrorCode, LocalProtocolError
from alpyne_proto.messages.compute import Cause, JobEvent, JobState, Verdict

LOST_AFTER_S = 3.0  # a restarted daemon is back within this; its jobs then stay
PAUSE_S = 0.5  # for a node that refused work for now

_ALIVE = (Phase.SENT, Phase.ACCEPTED, Phase.RUNNING)
_AT_NODE = (*_ALIVE, Phase.FETCHING)
_RETRIED = (Cause.EXCEPTION, Cause.CRASH, Cause.EXIT_STATUS)
_BEGUN = (JobState.RUNNING, JobState.SUSPENDED)


class GridTable(GridPauses):
    """The jobs and compute nodes of one journal."""

    def __init__(self, *, lost_after_s: float = LOST_AFTER_S) -> None:
        super().__init__()
        self._lost_after_s = lost_after_s
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            g.JobsAdded: self._jobs_added,
            g.NodesExpected: self._nodes_expected,
            g.NodeUp: self._node_up,
            g.NodeDown: self._node_down,
            g.LoadChanged: self._load_changed,
            g.JobAnswered: self._job_answered,
            g.JobChanged: self._job_changed,
            g.ResultFetched: self._result_fetched,
            g.FetchFailed: self._fetch_failed,
            g.CancelAsked: self._cancel_asked,
            g.SuspendAsked: self._suspend_asked,
            g.ResumeAsked: self._resume_asked,
            g.Stored: self._stored,
            g.StoreFailed: self._store_failed,
            g.Tick: self._tick,
        }

    def handle(self, event: g.Event, now: float) -> list[g.Effect]:
        """Take one event at monotonic time ``now`` (seconds); return what is to be done."""
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[g.Event], now: float) -> list[g.Effect]:
        """Take several events, and place waiting jobs once, after the last."""
        self._effects = []
        for event in events:
            try:
                self._handlers[type(event)](event, now)
            except LocalProtocolError as error:  # one job's trouble must not stop the others
                self._do(g.Misstep(str(error)))
        if self._room and self._waiting:
            self._waiting.run(self.nodes.values(), now, all_heard=not self._unheard)
        self._room = False
        return self._effects

    @property
    def wants_ticks(self) -> bool:
        """Whether something waits for time to pass: give it Tick a few times per second."""
        for node in self.nodes.values():
            if not node.up and not node.lost:
                return True
        return bool(self._waiting)

    # --- jobs come and get a node -----------------------------------------------------------

    def _jobs_added(self, event: g.JobsAdded, now: float) -> None:
        self.counts["submitted"] += len(event.plans)
        for plan in event.plans:
            job = self.jobs[plan.job_id] = GridJob(plan, now)
            self._waiting.add(job)
        self._room = True

    # --- nodes ------------------------------------------------------------------------------

    def _nodes_expected(self, event: g.NodesExpected, now: float) -> None:
        self._unheard = set(event.nodes) - self.nodes.keys()
        self._room = True

    def _node_up(self, event: g.NodeUp, now: float) -> None:
        self._unheard.discard(event.node)
        node = self.nodes.get(event.node)
        if node is None:
            node = self.nodes[event.node] = Node(event.node, event.facts)
        node.came_up(event.facts)
        self._waiting.nodes_changed()
        self._room = True
        for job_id in sorted(node.zombies):
            self._do(g.Cancel(node.key, job_id))
        node.zombies.clear()
        for job in [self.jobs[job_id] for job_id in sorted(node.jobs)]:
            self._go_on(job, node, fresh=event.fresh)

    def _go_on(self, job: GridJob, node: Node, *, fresh: bool) -> None:
        """Take up a job at its node, which is back."""
        if job.phase is Phase.STRANDED:  # the news that it has finished is not told twice
            job.move(Trigger.NODE_BACK if job.outcome is None else Trigger.RESULT_BACK)
        if fresh and job.answered and job.phase in _AT_NODE:
            self._rerun(job, "its node lost its store", moves=True)
        elif job.phase is Phase.SENT or (job.phase in _ALIVE and not job.answered):
            job.answered = False
            self._send(job)  # a node that has it answers DUPLICATE; a cancel follows the answer
        elif job.phase is Phase.FETCHING and job.outcome is not None:
            self._fetch(job, job.outcome)
        elif job.cancelled and job.phase in _ALIVE:
            self._do(g.Cancel(node.key, job.plan.job_id))
        else:
            self._tell_pause(job)

    def _node_down(self, event: g.NodeDown, now: float) -> None:
        node = self.nodes.get(event.node)
        if node is not None and node.up:
            node.up, node.down_since = False, now

    def _tick(self, event: g.Tick, now: float) -> None:
        self._room = True
        for node in self.nodes.values():
            if node.up or node.lost or now - node.down_since < self._lost_after_s:
                continue
            node.lost = True
            self._count(node.key, "lost")
            # The last one first: each goes before the others in the queue.
            for job in [self.jobs[job_id] for job_id in sorted(node.jobs, reverse=True)]:
                if job.phase in _AT_NODE:
                    self._node_lost(job)

    def _node_lost(self, job: GridJob) -> None:
        if job.cancelled:
            self._leave_to_die(job)
            self._give_up_cancelled(job, "cancelled; its lost node ends it when it is back")
        elif job.plan.on_lost is g.OnLost.MOVE and job.moves >= MOVES_MAX:
            self._leave_to_die(job)
            self._give_up_lost(job, "its node was lost")
        elif job.plan.on_lost is g.OnLost.MOVE:
            job.move(Trigger.NODE_LOST)
            self._waiting.add(job, first=True)

    def _load_changed(self, event: g.LoadChanged, now: float) -> None:
        node = self.nodes.get(event.node)
        if node is not None:
            node.slots, node.queued, node.load = event.slots, event.queued, event.load
            node.score = event.score or node.score
            self._room = True

    # --- what nodes say of jobs -------------------------------------------------------------

    def _job_answered(self, event: g.JobAnswered, now: float) -> None:
        job = self.jobs.get(event.job_id)
        if job is None or job.node != event.node or job.phase not in _AT_NODE:
            return
        if event.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE):
            self._accepted(job)
        elif job.phase in _ALIVE and not job.answered:  # its events may have overtaken this
            self._refused(job, event, now)

    def _accepted(self, job: GridJob) -> None:
        if job.answered:
            return
        job.answered = True
        state = JobState.RUNNING
        if job.phase is Phase.SENT:
            job.move(Trigger.ANSWERED)
            state = JobState.QUEUED
        self._do(g.Changed(job.plan.job_id, state, job.node, True))
        if job.cancelled and job.node is not None:
            self._do(g.Cancel(job.node, job.plan.job_id))
        elif job.pause:
            self._tell_pause(job)

    def _refused(self, job: GridJob, event: g.JobAnswered, now: float) -> None:
        if event.retryable and event.code is not ErrorCode.UNSUPPORTED:
            self.nodes[event.node].paused_until = now + max(PAUSE_S, event.retry_after_s)
        else:  # what a node does not support it will not support in a moment either
            job.without |= {event.node}
        refusal = self._verdict(job, JobState.FAILED, Cause.NODE, event.text)
        self._rerun(job, event.text)
        if job.phase is Phase.WAITING:
            code = event.code or ErrorCode.BAD_REQUEST
            job.outcome = replace(refusal, node=event.node, refused=code)

    def _job_changed(self, event: g.JobChanged, now: float) -> None:
        job, row = self.jobs.get(event.row.job_id), event.row
        if (
            job is None
            or job.node != event.node
            or job.allocation != row.allocation
            or row.attempt < job.attempt
            or job.phase not in _AT_NODE
        ):
            self._stale(job, event)
        elif job.phase is Phase.FETCHING and row.attempt == job.attempt:
            pass  # the same news again, after a reconnection
        else:
            self._taken_up(job, event, now)

    def _taken_up(self, job: GridJob, event: g.JobChanged, now: float) -> None:
        """Take news of the execution that counts."""
        row = event.row
        if job.phase is Phase.FETCHING:  # its node fell before the result was durable
            job.move(Trigger.ATTEMPTED_ANEW)
            job.outcome = None
        if row.state >= JobState.DONE:
            job.attempt = row.attempt
            self._finished(job, event, now)
        else:
            if row.state in _BEGUN:
                job.move(Trigger.STARTED)
            self._heard_of(job, row)
            self._do(g.Changed(row.job_id, row.state, event.node, job.answered))

    def _stale(self, job: GridJob | None, event: g.JobChanged) -> None:
        """News of an execution that counts no more: fence its result, end it if it still runs."""
        row = event.row
        if row.state < JobState.DONE:
            if job is None or job.node != event.node:
                self._do(g.Cancel(event.node, row.job_id))
            return
        epoch = (row.allocation, row.attempt)
        settled = self._settled.get(row.job_id)
        if job is None and settled is None:
            if epoch == FIRST or row.job_id in self._abandoned:
                return  # delivered long ago; the node tells it again after a reconnection
            settled = FIRST
        older = epoch != settled if job is None else row.allocation < job.allocation
        if older and row.state is JobState.DONE and (row.job_id, *epoch) not in self._fenced:
            self._fenced.add((row.job_id, *epoch))
            self._count(event.node, "fenced")
        if settled is not None:  # so that the node marks its result as superseded
            self._do(g.Settle(event.node, row.job_id, *settled))

    def _finished(self, job: GridJob, event: g.JobChanged, now: float) -> None:
        row = event.row
        outcome = _outcome(event)
        if row.state is JobState.DONE:
            self.nodes[event.node].learn(job.plan.kind, row.usage.wall_ms)
        elif _is_nodes_fault(row) and not job.cancelled:
            if row.state is JobState.FAILED:
                self._pause_node(job, event.node, now)
            self._rerun(job, row.text or "its node could not keep it", moves=True)
            return
        if row.cause in _RETRIED and job.tries < job.plan.retries and not job.cancelled:
            job.tries += 1
            self._count(event.node, "retried")
            self._rerun(job, row.text)
        elif row.inline or not row.result_bytes:
            job.move(Trigger.FINISHED)
            self._settle(job, outcome, row.sha256)
        else:
            job.move(Trigger.FINISHED_LARGE)
            job.outcome = outcome
            self._fetch(job, outcome)

    def _pause_node(self, job: GridJob, key: bytes, now: float) -> None:
        """Send nothing to a node that could not run a job, for a moment; longer each time.

        So it has time to recover (a container engine that starts anew), and others take its work.
        """
        node = self.nodes[key]
        node.paused_until = max(node.paused_until, now + PAUSE_S * 2**job.moves)

    # --- large results ----------------------------------------------------------------------

    def _is_fetching(self, job: GridJob | None, event: g.ResultFetched | g.FetchFailed) -> bool:
        return (
            job is not None
            and job.phase is Phase.FETCHING
            and (job.node, job.allocation, job.attempt)
            == (event.node, event.allocation, event.attempt)
        )

    def _result_fetched(self, event: g.ResultFetched, now: float) -> None:
        job = self.jobs.get(event.job_id)
        if job is not None and job.outcome is not None and self._is_fetching(job, event):
            job.move(Trigger.FETCHED)
            self._settle(job, replace(job.outcome, body=event.body), event.sha256)

    def _fetch_failed(self, event: g.FetchFailed, now: float) -> None:
        job = self.jobs.get(event.job_id)
        if job is not None and self._is_fetching(job, event):
            self._rerun(job, event.text, moves=True)

    # --- the end of a job -------------------------------------------------------------------

    def _cancel_asked(self, event: g.CancelAsked, now: float) -> None:
        job = self.jobs.get(event.job_id)
        if job is None or job.cancelled:
            return
        job.cancelled = True
        if job.phase is Phase.STRANDED:
            self._leave_to_die(job)
        if job.phase in (Phase.WAITING, Phase.STRANDED):
            self._give_up_cancelled(job, "cancelled before it ran")
        elif job.phase in _ALIVE and job.answered and job.node is not None:
            self._do(g.Cancel(job.node, event.job_id))
        # SENT: an interrupt would overtake the submission; it follows the node's answer.

    def _stored(self, event: g.Stored, now: float) -> None:
        job = self.jobs[event.job_id]
        if job.phase is Phase.MINTING:
            node = self.nodes[job.node] if job.node is not None else None
            if job.cancelled:
                self._give_up_cancelled(job, "cancelled before it ran again")
                return
            job.move(Trigger.MINTED)
            if node is not None and node.up:
                self._send(job)  # else it is sent when the node is back
            elif node is not None and node.lost:
                self._node_lost(job)
                self._room = True
            return
        job.move(Trigger.STORED)
        self._end(job)

    def _store_failed(self, event: g.StoreFailed, now: float) -> None:
        job = self.jobs.pop(event.job_id)
        self._leave(job)
        job.move(Trigger.STORE_FAILED)
        self._abandoned.add(event.job_id)
        self._do(g.Abandon(event.job_id, event.text))


def _is_nodes_fault(row: JobEvent) -> bool:
    """Return whether an execution ended for its node's sake: the program may be well."""
    is_failed = row.state is JobState.FAILED and row.cause is Cause.NODE
    return is_failed or row.state is JobState.LOST


def _outcome(event: g.JobChanged) -> g.Outcome:
    row: JobEvent = event.row
    return g.Outcome(
        row.state,
        row.cause,
        row.text,
        event.body,
        event.node,
        row.allocation,
        row.attempt,
        row.exit_status,
        row.isolation,
        Receipt(row.ended, row.left, True),
        row.usage,
        from_node=True,
    )
