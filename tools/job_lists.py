"""The account's jobs as the pool's compute nodes list them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alpyne_grid.manager import admin
from alpyne_grid.manager.identity import ManagerIdentity
from alpyne_grid.manager.pool import PoolNode
from alpyne_grid.tools.pool_requests import Outcome, at_each_node

from alpyne_proto.errors import AlpyneError
from alpyne_proto.messages.compute import JobRow, JobState, ListJobs
from alpyne_proto.messages.hello import NodeKind

FINISHED = frozenset(state for state in JobState if state >= JobState.DONE)


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job and the node that lists it."""

    node: PoolNode
    row: JobRow

    @property
    def is_over(self) -> bool:
        """Whether it is finished and its result was delivered."""
        return self.row.settled and self.row.state in FINISHED


@dataclass(frozen=True, slots=True)
class Listing:
    """Jobs in order of submission, and the compute nodes that could not be asked."""

    jobs: tuple[ListedJob, ...]
    failed: tuple[Outcome[list[JobRow]], ...]

    def first_error(self) -> AlpyneError | None:
        """Return why a node could not be asked, where none could."""
        return self.failed[0].error if self.failed and not self.jobs else None


def compute_nodes(nodes: Iterable[PoolNode]) -> list[PoolNode]:
    """Return those of ``nodes`` that run jobs, or may."""
    return [node for node in nodes if node.kind is not NodeKind.DATA]


def list_jobs(me: ManagerIdentity, nodes: Sequence[PoolNode], request: ListJobs) -> Listing:
    """Ask ``nodes`` at once; of a job that was moved, the newest execution is listed."""
    outcomes = at_each_node(me, compute_nodes(nodes), lambda link: admin.jobs(link, request))
    newest: dict[bytes, ListedJob] = {}
    for outcome in outcomes:
        for row in outcome.value or ():
            known = newest.get(row.job_id)
            if known is None or _epoch(row) > _epoch(known.row):
                newest[row.job_id] = ListedJob(outcome.node, row)
    jobs = sorted(newest.values(), key=lambda job: (job.row.submitted_at_ms, job.row.job_id))
    return Listing(tuple(jobs), tuple(o for o in outcomes if o.error is not None))


def _epoch(row: JobRow) -> tuple[int, int]:
    return row.allocation, row.attempt
