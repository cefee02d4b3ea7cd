"""A job as its node knows it: its record, its states, and the one function that moves it.

QUEUED -> STARTING -> RUNNING <-> SUSPENDED
   |         |           |            |
   +---------+-----------+------------+--> DONE FAILED KILLED LIMIT TIMEOUT LOST
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

from alpyne_grid.nodes.compute.backends.base import Execution

from alpyne_proto.errors import AlpyneError
from alpyne_proto.messages.compute import Cause, JobSpec, JobState

_Q, _ST, _R, _SU = JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.SUSPENDED

# Every legal move and what makes it; the diagram in the documents follows this table.
MOVES: dict[tuple[JobState, JobState], str] = {
    (_Q, _ST): "slots and memory are free and it is the account's turn",
    (_Q, JobState.KILLED): "cancelled, replaced or revoked while it waited",
    (_ST, _R): "the back end is about to run the program",
    (_ST, JobState.FAILED): "the worker could not be started, or died",
    (_ST, JobState.KILLED): "cancelled, replaced or revoked",
    (_ST, JobState.LOST): "its program is no longer in the store",
    (_ST, JobState.LIMIT): "a limit was hit before the program ran",
    (_R, _SU): "somebody wants it to pause",
    (_SU, _R): "nobody wants it to pause any more",
    (_R, JobState.DONE): "the program ended well",
    (_R, JobState.FAILED): "the program failed, or the node",
    (_R, JobState.KILLED): "cancelled, replaced or revoked",
    (_R, JobState.LIMIT): "more memory, output or result than allowed",
    (_R, JobState.TIMEOUT): "longer in RUNNING than allowed",
    (_SU, JobState.DONE): "the program ended well just before it was paused",
    (_SU, JobState.FAILED): "the worker died",
    (_SU, JobState.KILLED): "cancelled, replaced or revoked",
    (_SU, JobState.LIMIT): "more memory than allowed",
    (_SU, JobState.TIMEOUT): "it had run too long just before it was paused",
}
FINISHED = frozenset(state for state in JobState if state >= JobState.DONE)
STORY_MAX = 8  # moves kept for the message of an illegal one


class SuspendReason(Enum):
    """Who wants a job to pause; it runs again when nobody does."""

    MANAGER = "manager"
    MACHINE_OWNER = "machine's owner"
    DRAIN = "drain"


class Settled(IntEnum):
    """Whether a finished job's result is still waited for."""

    NO = 0
    DELIVERED = 1  # this execution's result was delivered
    SUPERSEDED = 2  # another execution's was


class Now(NamedTuple):
    """The time of an event: monotonic for limits, wall time for retention only."""

    monotonic_s: float
    wall_ms: int  # milliseconds since the epoch


class Ending(NamedTuple):
    """As what a job will end when its processes are gone."""

    state: JobState
    cause: Cause
    text: str


class Result(NamedTuple):
    """A result: in its row, or in the file of its job's number and attempt.

    ``data`` is an ``in_row`` result's bytes until they are durable, and empty afterwards.
    """

    size: int
    sha256: bytes
    in_row: bool
    data: bytes = b""


class IllegalMove(AlpyneError):
    """The table was asked for a move that MOVES does not hold: a defect of this node."""


@dataclass(slots=True, eq=False)
class Job:
    """One allocation of one job.

    ``number`` is the row's key in the store, rising with submission. ``stored``: its row is
    durable. ``successor`` and ``predecessor`` tie a job to the higher allocation that replaces it,
    for as long as both are there. ``end`` is the encoded JobEvent of its finish. ``spec_bytes`` is
    what it counts against the bound of waiting jobs. ``payload``: its program, for as long as it
    waits and memory has room; None where only its row has it.
    """

    number: int
    account: bytes
    spec: JobSpec
    submitted_at_ms: int
    bytes_kept: int  # payload, and result once there is one
    payload: bytes | None = None
    spec_bytes: int = 0
    state: JobState = JobState.QUEUED
    attempt: int = 1
    sequence: int = 0
    announced: JobState = JobState.QUEUED  # the state of its newest event
    stored: bool = False
    reasons: frozenset[SuspendReason] = frozenset()  # who wants it to pause
    running_since_s: float = 0.0
    ran_s: float = 0.0  # in RUNNING before ``running_since_s``
    ending: Ending | None = None
    successor: "Job | None" = None
    predecessor: "Job | None" = None
    cause: Cause = Cause.NONE
    result: Result | None = None
    end: bytes = b""
    finished_at_ms: int = 0
    settled: Settled = Settled.NO
    settled_at_ms: int = 0
    story: list[JobState] = field(default_factory=list)

    @property
    def execution(self) -> Execution:
        """Its current execution."""
        return Execution(self.account, self.spec.job_id, self.spec.allocation, self.attempt)

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.state >= JobState.DONE


def move(job: Job, to: JobState) -> None:
    """Move ``job`` to ``to``, or raise IllegalMove with its last states where MOVES has no pair."""
    if (job.state, to) not in MOVES:
        story = " > ".join(state.name for state in (*job.story, job.state))
        raise IllegalMove(
            f"job {job.spec.job_id.hex()} ({job.spec.allocation}, {job.attempt}): "
            f"no move from {job.state.name} to {to.name}; it went {story}"
        )
    job.story.append(job.state)
    if len(job.story) > STORY_MAX:
        del job.story[0]
    job.state = to
