"""What happens to the job table (events, past tense) and what it asks for (effects, imperative)."""

from dataclasses import dataclass

from alpyne_grid.nodes.compute.backends.base import Execution, TaskEnd
from alpyne_grid.nodes.compute.job import Ending, Job, Result, Settled

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import Cause, JobAnswer, JobSpec, JobState, SettleRow

# ---- events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewJob:
    """One submitted job; ``missing`` are hashes of blobs that the account has not sent here."""

    spec: JobSpec
    payload: bytes
    missing: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class JobsSubmitted:
    """A batch of jobs came. ``request`` is the shell's number for the answer's way.

    ``room_bytes``: what the account may still keep beside the table's own bytes; None = no limit.
    """

    request: int
    account: bytes
    jobs: tuple[NewJob, ...]
    room_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class BatchStored:
    """The batch of a Store effect is durable."""

    batch: int


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """The batch of a Store effect was not stored and has left nothing behind."""

    batch: int
    text: str


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """The program is about to run."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class ExecutionEnded:
    """An execution is over; its result is in memory or in its final file."""

    execution: Execution
    end: TaskEnd
    result: Result


@dataclass(frozen=True, slots=True)
class ExecutionCondemned:
    """The node has a reason to end an execution: too much output, a disk that is full."""

    execution: Execution
    ending: Ending


@dataclass(frozen=True, slots=True)
class ExecutionSuspended:
    """The back end has paused an execution."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class ExecutionResumed:
    """The back end lets an execution run again."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class JobsSuspended:
    """An account wants these of its jobs to pause; ids that it does not have are passed over."""

    account: bytes
    job_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class JobsResumed:
    """An account wants these of its jobs to pause no longer."""

    account: bytes
    job_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class JobsCancelled:
    """An account wants these of its jobs to end; ids that it does not have are passed over."""

    account: bytes
    job_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class JobsSettled:
    """An account's manager has delivered these results."""

    request: int
    account: bytes
    rows: tuple[SettleRow, ...]


@dataclass(frozen=True, slots=True)
class AccountRevoked:
    """An account is no longer served here."""

    account: bytes


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """The number of execution places is another; 0 starts nothing more."""

    slots: int


@dataclass(frozen=True, slots=True)
class JobsRestored:
    """The jobs that the store held at the daemon's start, once, before any other event."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The time of ``JobTable.next_due_s`` has come."""


Event = (
    JobsSubmitted
    | BatchStored
    | BatchFailed
    | ExecutionStarted
    | ExecutionEnded
    | ExecutionCondemned
    | ExecutionSuspended
    | ExecutionResumed
    | JobsSuspended
    | JobsResumed
    | JobsCancelled
    | JobsSettled
    | AccountRevoked
    | SlotsChanged
    | JobsRestored
    | TimePassed
)

# ---- what is written -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobAdded:
    """A new job's row."""

    number: int
    account: bytes
    spec: JobSpec
    payload: bytes
    submitted_at_ms: int


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A job's end and its result."""

    number: int
    attempt: int
    state: JobState
    cause: Cause
    sequence: int
    finished_at_ms: int
    end: bytes  # the encoded JobEvent
    result: Result


@dataclass(frozen=True, slots=True)
class JobMarked:
    """A job's result was delivered, or another execution's."""

    number: int
    settled: Settled
    settled_at_ms: int


@dataclass(frozen=True, slots=True)
class AttemptsRaised:
    """Every job that has not finished gets the next attempt."""


@dataclass(frozen=True, slots=True)
class JobsDropped:
    """Rows and files of these jobs go."""

    numbers: tuple[int, ...]


Write = JobAdded | JobFinished | JobMarked | AttemptsRaised | JobsDropped

# ---- effects ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Store:
    """Make ``writes`` durable, all or none, then report BatchStored or BatchFailed."""

    batch: int
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a submission."""

    request: int
    answers: tuple[JobAnswer, ...]


@dataclass(frozen=True, slots=True)
class Confirm:
    """Answer a settling: done."""

    request: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a settling: not done."""

    request: int
    code: ErrorCode
    text: str


@dataclass(frozen=True, slots=True)
class StartTask:
    """Run the job's current execution; ``payload`` is None where only its row has it."""

    job: Job
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class CancelTask:
    """End an execution; its ExecutionEnded follows."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class SuspendTask:
    """Pause an execution; its ExecutionSuspended or its ExecutionEnded follows."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class ResumeTask:
    """Let an execution go on that was to pause; its ExecutionResumed or ExecutionEnded follows."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class Publish:
    """The job's state has changed: tell its account's subscribers."""

    job: Job


@dataclass(frozen=True, slots=True)
class DropFiles:
    """The rows of these jobs are gone: their output, result and payload files may go."""

    numbers: tuple[int, ...]


Effect = (
    Store
    | Answer
    | Confirm
    | Refuse
    | StartTask
    | CancelTask
    | SuspendTask
    | ResumeTask
    | Publish
    | DropFiles
)
