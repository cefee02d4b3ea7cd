"""Jobs that wait for a node: one queue per kind and wishes, so that a full node blocks no other."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from alpyne_grid.manager.grid_jobs import GridJob, Phase
from alpyne_grid.manager.placement import LOCALITY_WAIT_S, Node, Wants, beside, choose, misfit

FIT_WAIT_S = 10.0  # how long a job waits for a node that never answered and might fit

_PLACEABLE = (Phase.WAITING, Phase.STRANDED)


@dataclass(slots=True)
class _Queue:
    jobs: deque[GridJob] = field(default_factory=deque)
    near_at: float = float("-inf")  # when a job of it was last placed beside its data


class Waiting:
    """The queues of one GridTable.

    ``place(job, node)`` is called for a job that gets a node, ``unplaceable(job, reasons)`` for one
    that no node fits.
    """

    def __init__(
        self,
        place: Callable[[GridJob, Node], None],
        unplaceable: Callable[[GridJob, tuple[str, ...]], None],
    ) -> None:
        self._place = place
        self._unplaceable = unplaceable
        self._queues: dict[tuple[str, Wants], _Queue] = {}
        self._fits: dict[Wants, list[Node]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, job: GridJob, *, first: bool = False) -> None:
        """Queue a job; ``first``: before those that never had a node."""
        wants = job.plan.wants
        if job.without:
            wants = replace(wants, without=wants.without | job.without)
        queue = self._queues.setdefault((job.plan.kind, wants), _Queue())
        if first:
            queue.jobs.appendleft(job)
        else:
            queue.jobs.append(job)

    def nodes_changed(self) -> None:
        """Forget which nodes fit which wishes."""
        self._fits.clear()

    def run(self, nodes: Iterable[Node], now: float, *, all_heard: bool) -> None:
        """Place what can be placed. ``all_heard``: every node of the pool has said what it has."""
        for key, queue in list(self._queues.items()):  # to hash a key is most of all this
            self._run_queue(*key, queue, nodes, now, all_heard=all_heard)
            if not queue.jobs:
                del self._queues[key]

    def _run_queue(
        self,
        kind: str,
        wants: Wants,
        queue: _Queue,
        nodes: Iterable[Node],
        now: float,
        *,
        all_heard: bool,
    ) -> None:
        fitting = self._fitting(wants, nodes)
        near = [n for n in beside(fitting, wants.labels) if n.up and n.slots]
        jobs = queue.jobs
        while jobs:
            job = jobs[0]
            if job.phase not in _PLACEABLE:
                jobs.popleft()  # it ended, or its node came back
                continue
            if not fitting:
                if not (all_heard or wants.without or now - job.added_at >= FIT_WAIT_S):
                    return
                jobs.popleft()
                why = [f"{n.facts.name}: {misfit(n.facts, n.key, wants)}" for n in nodes]
                self._unplaceable(job, tuple(why) or ("the pool has no compute node",))
                continue
            node = choose(near, kind, wants.cpus, job.plan.size, now)
            if node is not None:
                queue.near_at = now
            elif not near or now - max(job.added_at, queue.near_at) >= LOCALITY_WAIT_S:
                node = choose(fitting, kind, wants.cpus, job.plan.size, now)
            if node is None:
                return
            jobs.popleft()
            self._place(job, node)

    def _fitting(self, wants: Wants, nodes: Iterable[Node]) -> list[Node]:
        found = self._fits.get(wants)
        if found is None:
            found = [node for node in nodes if not misfit(node.facts, node.key, wants)]
            self._fits[wants] = found
        return found
