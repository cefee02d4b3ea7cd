"""Who runs next: a queue per account, served round robin, and the places that jobs run in."""

from collections import deque
from dataclasses import dataclass, field

from alpyne_grid.nodes.compute.job import Job

from alpyne_proto.messages.compute import JobState


@dataclass(slots=True)
class Ledger:
    """What the table keeps of one account. ``jobs`` by id, in the order of their submission."""

    jobs: dict[bytes, Job] = field(default_factory=dict)
    sequence: int = 0  # of its newest event
    unsettled: int = 0  # jobs whose results nobody has settled, unfinished ones included
    bytes_kept: int = 0


class Places:
    """Slots and memory: what there is, and what running jobs hold of it.

    ``memory_bytes``: what jobs with a memory limit may claim together; 0 = not counted. ``slots``
    may fall below what is held: then nothing starts until enough has ended.
    """

    def __init__(self, slots: int, memory_bytes: int) -> None:
        self.slots = slots
        self.busy = 0
        self._memory_bytes = memory_bytes
        self._claimed_bytes = 0

    def take(self, job: Job) -> bool:
        """Take what ``job`` needs and return True, or take nothing and return False."""
        spec = job.spec
        if self.busy + spec.cpus > self.slots:
            return False
        if self._memory_bytes and self._claimed_bytes + spec.memory_bytes > self._memory_bytes:
            return False
        self.busy += spec.cpus
        self._claimed_bytes += spec.memory_bytes
        return True

    def give_back(self, job: Job) -> None:
        """Give back what ``take`` took for ``job``."""
        self.busy -= job.spec.cpus
        self._claimed_bytes -= job.spec.memory_bytes


class RoundRobin:
    """Queued jobs: each account in its order of submission, the accounts in turn.

    A job that was cancelled while it waited stays in its queue and is passed over.
    """

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[Job]] = {}
        self._turns: deque[bytes] = deque()

    def put(self, job: Job) -> None:
        """Queue ``job`` behind its account's others."""
        queue = self._queues.get(job.account)
        if queue is None:
            self._queues[job.account] = deque((job,))
            self._turns.append(job.account)
        else:
            queue.append(job)

    def take(self, places: Places) -> Job | None:
        """Return the next job, whose places are taken, or None.

        The job whose turn it is is never passed over by a smaller one, which would starve it.
        """
        while self._turns:
            account = self._turns[0]
            queue = self._queues[account]
            while queue and queue[0].state is not JobState.QUEUED:
                queue.popleft()
            if not queue:
                del self._queues[account]
                self._turns.popleft()
                continue
            if not places.take(queue[0]):
                return None
            self._turns.rotate(-1)
            return queue.popleft()
        return None
