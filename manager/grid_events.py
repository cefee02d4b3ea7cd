"""What goes into GridTable and what comes out of it."""

from dataclasses import dataclass, field, replace
from enum import Enum

from alpyne_grid.manager.errors import Receipt
from alpyne_grid.manager.journal import Record
from alpyne_grid.manager.placement import NodeFacts, Wants

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import Cause, JobEvent, JobState, Usage, Verdict

_NO_RECEIPT, _NO_USAGE = Receipt(), Usage()


class OnLost(Enum):
    """What happens to a job whose node is lost."""

    MOVE = "move"  # it runs elsewhere, under a new allocation
    WAIT = "wait"  # it waits until the same node is back


@dataclass(frozen=True, slots=True)
class Plan:
    """A job as the table needs it; what is sent for it is the shell's business.

    ``kind``: jobs of one kind are expected to take equally long (a function's name). ``retries``:
    how often an exception or crash is tried anew. ``size``: bytes that sending it takes.
    """

    job_id: bytes
    kind: str = ""
    wants: Wants = field(default_factory=Wants)
    retries: int = 0
    on_lost: OnLost = OnLost.MOVE
    size: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: its one result."""

    state: JobState
    cause: Cause
    text: str
    body: bytes  # rows of alpyne_proto.messages.program
    node: bytes | None  # where it ended; None: nowhere
    allocation: int
    attempt: int
    exit_status: int = 0
    isolation: int = 0
    receipt: Receipt = _NO_RECEIPT
    usage: Usage = _NO_USAGE
    refused: ErrorCode = ErrorCode.NO_ERROR
    misfits: tuple[str, ...] = ()  # why no node fits, one line per node
    from_node: bool = False  # a node's word, not the manager's decision
    node_failed: bool = False  # a node that was there could not run or keep it; ``text`` says why


def with_misfits(outcome: Outcome, misfits: tuple[str, ...]) -> Outcome:
    """Return ``outcome`` with more reasons why no node fits."""
    return replace(outcome, misfits=misfits)


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobsAdded:
    """The program submitted jobs."""

    plans: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class NodesExpected:
    """These compute nodes are in the pool; a job waits for the first word of each before it
    is given up because no node fits.
    """

    nodes: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A compute node is connected. ``fresh``: it knows nothing of what it had accepted before."""

    node: bytes
    facts: NodeFacts
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The connection to a compute node is lost."""

    node: bytes


@dataclass(frozen=True, slots=True)
class LoadChanged:
    """A node's load, queue or number of slots changed."""

    node: bytes
    slots: int
    queued: int
    load: float
    score: float


@dataclass(frozen=True, slots=True)
class JobAnswered:
    """A node answered the submission of one job."""

    node: bytes
    job_id: bytes
    verdict: Verdict
    code: ErrorCode = ErrorCode.NO_ERROR
    text: str = ""
    retryable: bool = False
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A node pushed a job's new state. ``body`` is the whole result where ``row.inline``."""

    node: bytes
    row: JobEvent
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ResultFetched:
    """The bytes of a result that was too large to be pushed."""

    node: bytes
    job_id: bytes
    allocation: int
    attempt: int
    body: bytes
    sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The node could not give a result's bytes, though it is connected."""

    node: bytes
    job_id: bytes
    allocation: int
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The program wants a job to end."""

    job_id: bytes


@dataclass(frozen=True, slots=True)
class SuspendAsked:
    """The program wants a job to pause, now or as soon as it runs."""

    job_id: bytes


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """The program wants a job to go on."""

    job_id: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """The journal has the records of this job's last Store."""

    job_id: bytes


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The journal could not be written; nothing was committed."""

    job_id: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = (
    JobsAdded
    | NodesExpected
    | NodeUp
    | NodeDown
    | LoadChanged
    | JobAnswered
    | JobChanged
    | ResultFetched
    | FetchFailed
    | CancelAsked
    | SuspendAsked
    | ResumeAsked
    | Stored
    | StoreFailed
    | Tick
)

# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Submit the job to the node under this allocation."""

    node: bytes
    job_id: bytes
    allocation: int


@dataclass(frozen=True, slots=True)
class Store:
    """Commit the record in the journal; Stored or StoreFailed follows."""

    job_id: bytes
    record: Record


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand the job's one result to the program. The table has forgotten the job."""

    job_id: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Abandon:
    """Tell the program that the job's result cannot be settled; it stays on its node."""

    job_id: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Tell the node that this execution's result was delivered."""

    node: bytes
    job_id: bytes
    allocation: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the bytes of a large result; ResultFetched or FetchFailed follows while connected."""

    node: bytes
    job_id: bytes
    allocation: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Tell the node to end the job."""

    node: bytes
    job_id: bytes


@dataclass(frozen=True, slots=True)
class Suspend:
    """Tell the node to pause the job."""

    node: bytes
    job_id: bytes


@dataclass(frozen=True, slots=True)
class Resume:
    """Tell the node to let the job go on."""

    node: bytes
    job_id: bytes


@dataclass(frozen=True, slots=True)
class Changed:
    """The job's state, as its handle shows it, and where it is."""

    job_id: bytes
    state: JobState
    node: bytes | None
    accepted: bool


@dataclass(frozen=True, slots=True)
class Misstep:
    """An event could not be taken: a defect of ours, or a node that contradicts itself."""

    text: str


Effect = (
    Send
    | Store
    | Deliver
    | Abandon
    | Settle
    | Fetch
    | Cancel
    | Suspend
    | Resume
    | Changed
    | Misstep
)
