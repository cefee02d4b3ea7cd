"""When something is due: an announcement, the end of a running time, the end of retention."""

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from alpyne_grid.nodes.compute.admission import Bounds
from alpyne_grid.nodes.compute.job import Job, Now, Settled

from alpyne_proto.messages.compute import JobState

RETENTION_STEP_S = 60.0  # results go in batches, at most this often
ANNOUNCE_S = 0.05  # a state that lasts less is not announced; short jobs cost one event
ANNOUNCE_STEP_S = 0.02  # announcements go in batches, at most this often
VOID_MAX = 1024  # entries of jobs that have ended, before the heap is cleared of them


@dataclass(slots=True)
class Announcements:
    """Jobs that have come to a state from which they may go on at once."""

    _waiting: deque[tuple[float, Job]] = field(default_factory=deque)
    _checked_s: float = float("-inf")

    def watch(self, job: Job, now: Now) -> None:
        """Note ``job``, which has just come to STARTING or RUNNING."""
        self._waiting.append((now.monotonic_s + ANNOUNCE_S, job))

    def next_s(self) -> float | None:
        """Return the monotonic time of the next announcement; None for none."""
        if not self._waiting:
            return None
        return max(self._waiting[0][0], self._checked_s + ANNOUNCE_STEP_S)

    def due(self, now: Now) -> list[Job]:
        """Return the jobs whose present state has lasted and is not announced yet."""
        self._checked_s = now.monotonic_s
        due = []
        while self._waiting and self._waiting[0][0] <= now.monotonic_s:
            _, job = self._waiting.popleft()
            if not job.finished and job.state is not job.announced:
                job.announced = job.state
                due.append(job)
        return due


@dataclass(slots=True)
class RunningTimes:
    """Jobs in RUNNING by the time at which they will have run as long as they may."""

    _heap: list[tuple[float, int, Job]] = field(default_factory=list)  # monotonic s
    _clear_at: int = VOID_MAX

    def watch(self, job: Job) -> None:
        """Note ``job``, which has just come to RUNNING."""
        if not job.spec.timeout_ms:
            return
        heapq.heappush(self._heap, (_runs_out_s(job), job.number, job))
        if len(self._heap) > self._clear_at:
            self._heap = [entry for entry in self._heap if _counts(*entry)]
            heapq.heapify(self._heap)
            self._clear_at = max(VOID_MAX, 2 * len(self._heap))

    def next_s(self) -> float | None:
        """Return the monotonic time at which a job may have run too long; None for never."""
        return self._heap[0][0] if self._heap else None

    def run_out(self, now: Now) -> list[Job]:
        """Return the jobs whose running time is over, each once."""
        over = []
        while self._heap and self._heap[0][0] <= now.monotonic_s:
            _, _, job = heapq.heappop(self._heap)
            if job.state is JobState.RUNNING and _runs_out_s(job) <= now.monotonic_s:
                over.append(job)
        return over


def _counts(due_s: float, number: int, job: Job) -> bool:
    """Return whether an entry is of a job that runs, and not from before its last pause."""
    return not job.finished and due_s == _runs_out_s(job)


def _runs_out_s(job: Job) -> float:
    return job.running_since_s - job.ran_s + job.spec.timeout_ms / 1000


@dataclass(slots=True)
class Retention:
    """Finished jobs in the order in which they go: unsettled ones, and settled ones."""

    bounds: Bounds
    _unsettled: OrderedDict[int, Job] = field(default_factory=OrderedDict)
    _settled: OrderedDict[int, Job] = field(default_factory=OrderedDict)
    _checked_s: float = float("-inf")

    def keep(self, job: Job) -> None:
        """Note ``job``, which has just finished, been settled, or been unsettled again."""
        self.release(job)
        kept = self._unsettled if job.settled is Settled.NO else self._settled
        kept[job.number] = job

    def release(self, job: Job) -> None:
        """Forget ``job``."""
        self._unsettled.pop(job.number, None)
        self._settled.pop(job.number, None)

    def next_s(self, now: Now) -> float | None:
        """Return the monotonic time at which a result may go; None for never."""
        due = [self._goes_ms(job) for kept in self._both() for job in _first(kept)]
        if not due:
            return None
        wanted = now.monotonic_s + (min(due) - now.wall_ms) / 1000
        return max(wanted, self._checked_s + RETENTION_STEP_S)

    def gone(self, now: Now) -> list[Job]:
        """Take out and return the jobs whose time is over."""
        self._checked_s = now.monotonic_s
        gone = []
        for kept in self._both():
            while kept and self._goes_ms(_first(kept)[0]) <= now.wall_ms:
                gone.append(kept.popitem(last=False)[1])
        return gone

    def surplus(self) -> list[Job]:
        """Take out and return the oldest settled jobs above the bound."""
        surplus = []
        while len(self._settled) > self.bounds.settled_jobs:
            surplus.append(self._settled.popitem(last=False)[1])
        return surplus

    def _both(self) -> tuple[OrderedDict[int, Job], OrderedDict[int, Job]]:
        return self._unsettled, self._settled

    def _goes_ms(self, job: Job) -> int:
        if job.settled is Settled.NO:
            return job.finished_at_ms + self.bounds.unsettled_ms
        return job.settled_at_ms + self.bounds.settled_ms


def _first(kept: OrderedDict[int, Job]) -> list[Job]:
    return [next(iter(kept.values()))] if kept else []
