"""GridState: the jobs and nodes of a GridTable, and the steps that its handlers share."""

from collections import Counter, defaultdict
from dataclasses import replace

from alpyne_grid.manager import grid_events as g
from alpyne_grid.manager.errors import Receipt
from alpyne_grid.manager.grid_jobs import GridJob, Phase, Trigger
from alpyne_grid.manager.journal import NO_HASH, Kind, Record
from alpyne_grid.manager.placement import Node
from alpyne_grid.manager.waiting import Waiting

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import Cause, JobState

MOVES_MAX = 5
FIRST = (1, 1)  # the epoch of most jobs: allocation and attempt


class GridState:
    """What the manager knows, and what may be done with it; GridTable decides when."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, GridJob] = {}
        self.nodes: dict[bytes, Node] = {}
        self.counts: Counter[str] = Counter()
        self.per_node: defaultdict[bytes, Counter[str]] = defaultdict(Counter)
        self._waiting = Waiting(self._place_at, self._unplaceable)
        self._unheard: set[bytes] = set()
        # Epochs of ended jobs; not of those that a node ended in their first execution (FIRST).
        self._settled: dict[bytes, tuple[int, int]] = {}
        self._abandoned: set[bytes] = set()  # their results stay unsettled on their nodes
        self._fenced: set[tuple[bytes, int, int]] = set()
        self._effects: list[g.Effect] = []
        self._room = False  # whether a waiting job may find a place now

    def _do(self, effect: g.Effect) -> None:
        self._effects.append(effect)

    def _count(self, node: bytes | None, what: str) -> None:
        self.counts[what] += 1
        if node is not None:
            self.per_node[node][what] += 1

    # --- a job gets a node, and leaves it ---

    def _place_at(self, job: GridJob, node: Node) -> None:
        if job.phase is Phase.STRANDED:
            job.moves += 1
            self._count(job.node, "moved")
            self._leave_to_die(job)
        job.move(Trigger.PLACED_ANEW if job.allocation else Trigger.PLACED)
        job.allocation += 1
        job.attempt, job.answered, job.outcome = 0, False, None
        job.heard = JobState.QUEUED
        job.node = node.key
        node.take(job.plan.job_id, job.plan.wants.cpus, job.plan.size)
        if job.phase is Phase.SENT:
            self._send(job)
        else:
            self._do(g.Store(job.plan.job_id, self._record(Kind.ALLOCATED, job)))

    def _unplaceable(self, job: GridJob, reasons: tuple[str, ...]) -> None:
        if job.phase is Phase.STRANDED:
            self._leave_to_die(job)
        refusal = job.outcome
        if refusal is not None and refusal.refused is not ErrorCode.NO_ERROR:
            self._give_up(job, refusal)  # in the words of the last node that refused it
        else:
            text = "no compute node fits"
            outcome = self._verdict(job, JobState.FAILED, Cause.NODE, text)
            self._give_up(job, replace(outcome, misfits=reasons))

    def _send(self, job: GridJob) -> None:
        if job.node is not None:
            self._do(g.Send(job.node, job.plan.job_id, job.allocation))

    def _leave(self, job: GridJob) -> None:
        """Take the job out of its node's pipeline."""
        node = self.nodes.get(job.node) if job.node is not None else None
        if node is not None and node.give(job.plan.job_id, job.plan.wants.cpus, job.plan.size):
            self._room = True

    def _leave_to_die(self, job: GridJob) -> None:
        """Leave a node that is lost; what runs there ends when it is back."""
        self._leave(job)
        node = self.nodes.get(job.node) if job.node is not None else None
        if node is not None:
            node.zombies.add(job.plan.job_id)

    def _rerun(self, job: GridJob, why: str, *, moves: bool = False) -> None:
        """Have the job executed once more; its execution so far counts no more."""
        self._leave(job)
        if job.cancelled:
            self._give_up_cancelled(job, f"cancelled ({why})")
        elif moves and job.moves >= MOVES_MAX:
            self._give_up_lost(job, why, node_failed=True)
        else:
            if moves:
                job.moves += 1
                self._count(job.node, "moved")
            job.move(Trigger.RERUN)
            job.node = None
            self._waiting.add(job, first=True)
            self._room = True

    def _fetch(self, job: GridJob, outcome: g.Outcome) -> None:
        if outcome.node is not None:
            job_id = job.plan.job_id
            self._do(g.Fetch(outcome.node, job_id, outcome.allocation, outcome.attempt))

    # --- the end of a job ---

    def _record(self, kind: Kind, job: GridJob, sha256: bytes = b"") -> Record:
        counter = int.from_bytes(job.plan.job_id[8:], "big")
        return Record(kind, counter, job.allocation, job.attempt, sha256 or NO_HASH)

    def _settle(self, job: GridJob, outcome: g.Outcome, sha256: bytes = b"") -> None:
        job.outcome = outcome
        self._leave(job)
        self._do(g.Store(job.plan.job_id, self._record(Kind.SETTLED, job, sha256)))

    def _verdict(self, job: GridJob, state: JobState, cause: Cause, text: str) -> g.Outcome:
        """Return an outcome that the manager decides, not a node."""
        return g.Outcome(state, cause, text, b"", job.node, job.allocation, job.attempt)

    def _give_up(self, job: GridJob, outcome: g.Outcome) -> None:
        job.move(Trigger.GIVEN_UP)
        self._settle(job, outcome)

    def _give_up_cancelled(self, job: GridJob, text: str) -> None:
        outcome = self._verdict(job, JobState.KILLED, Cause.CANCELLED, text)
        if job.allocation == 0:  # it ran nowhere: nothing is left, for sure
            outcome = replace(outcome, receipt=Receipt(confirmed=True))
        self._give_up(job, outcome)

    def _give_up_lost(self, job: GridJob, why: str, *, node_failed: bool = False) -> None:
        text = f"{why}; it had moved {job.moves} times before"
        outcome = self._verdict(job, JobState.LOST, Cause.NODE, text)
        self._give_up(job, replace(outcome, node_failed=node_failed))

    def _end(self, job: GridJob) -> None:
        outcome = job.outcome
        assert outcome is not None
        del self.jobs[job.plan.job_id]
        epoch = (job.allocation, job.attempt)
        if epoch != FIRST or not outcome.from_node:
            self._settled[job.plan.job_id] = epoch
        self._count(outcome.node, "done" if outcome.state is JobState.DONE else "failed")
        self._count_usage(outcome)
        self._do(g.Deliver(job.plan.job_id, outcome))
        if outcome.node is not None and outcome.from_node:
            self._do(g.Settle(outcome.node, job.plan.job_id, *epoch))

    def _count_usage(self, outcome: g.Outcome) -> None:
        usage = outcome.usage
        self.counts["failovers"] += usage.failovers
        self.counts["read_bytes"] += usage.read_bytes
        self.counts["written_bytes"] += usage.written_bytes
        if outcome.node is not None:
            self.per_node[outcome.node]["busy_ms"] += usage.wall_ms
