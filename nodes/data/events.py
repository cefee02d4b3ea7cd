"""Events that go into the object table, and effects that come out of it.

``op`` numbers one request; whoever asks chooses it. The order of an operation's life:

    PutAsked      -> Load -> Loaded -> Receive -> BodyStaged -> Store -> Stored -> Answer
    DeleteAsked   -> Load -> Loaded             ->              Store -> Stored -> Answer
    ContainerAsked -> LoadContainer -> ContainerLoaded ->       Store -> Stored -> AnswerContainer

and at each step Refuse instead, which ends it.
"""

from dataclasses import dataclass

from alpyne_grid.nodes.data.records import (
    Change,
    Cutoffs,
    Descriptor,
    Found,
    JobEpoch,
    ObjectKey,
    ObjectRecord,
    Staged,
    Swept,
    Version,
)

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.data import Expect


@dataclass(frozen=True, slots=True)
class Condition:
    """What must stand under the key; ``version`` goes with VERSION."""

    expect: Expect = Expect.ANY
    version: Version | None = None


# ---- events ----


@dataclass(frozen=True, slots=True)
class PutAsked:
    """Somebody wants to put ``size`` bytes under ``key`` as ``version``."""

    op: int
    key: ObjectKey
    version: Version
    size: int
    condition: Condition = Condition()
    epoch: JobEpoch | None = None  # the job's execution that writes, if it is one
    quota_bytes: int = 0  # of the account; 0 = no limit


@dataclass(frozen=True, slots=True)
class DeleteAsked:
    """Somebody wants a tombstone under ``key`` as ``version``."""

    op: int
    key: ObjectKey
    version: Version
    condition: Condition = Condition()
    epoch: JobEpoch | None = None


@dataclass(frozen=True, slots=True)
class ContainerAsked:
    """Somebody wants ``descriptor`` kept."""

    op: int
    owner: bytes
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Loaded:
    """What Load asked for."""

    op: int
    found: Found


@dataclass(frozen=True, slots=True)
class ContainerLoaded:
    """What LoadContainer asked for."""

    op: int
    current: Descriptor | None


@dataclass(frozen=True, slots=True)
class BodyStaged:
    """The body has come whole, has the digest that the client sent, and is durable."""

    op: int
    staged: Staged


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Nobody waits for the operation any more, or its body did not come; what is staged stays."""

    op: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The batch is durable."""

    batch: int


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The batch was not acknowledged. ``why``: what to tell the client; "": nothing was changed."""

    batch: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class SweepDue:
    """It is time to take away what is past its retention."""


@dataclass(frozen=True, slots=True)
class SweepDone:
    """What a sweep has taken away."""

    swept: Swept


Event = (
    PutAsked
    | DeleteAsked
    | ContainerAsked
    | Loaded
    | ContainerLoaded
    | BodyStaged
    | Abandoned
    | Stored
    | StoreFailed
    | SweepDue
    | SweepDone
)


# ---- effects ----


@dataclass(frozen=True, slots=True)
class Load:
    """Look up what stands under ``key``, and the fence of ``job_id`` (empty: none)."""

    op: int
    key: ObjectKey
    job_id: bytes


@dataclass(frozen=True, slots=True)
class LoadContainer:
    """Look up the container's descriptor."""

    op: int
    owner: bytes
    container_id: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Take the body now; its room is reserved."""

    op: int


@dataclass(frozen=True, slots=True)
class Store:
    """Make ``changes`` durable, all or none, in the order of the batches."""

    batch: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget staged bytes that get no name."""

    staged: Staged


@dataclass(frozen=True, slots=True)
class Answer:
    """The operation is durable: ``record`` is the current version."""

    op: int
    record: ObjectRecord


@dataclass(frozen=True, slots=True)
class AnswerContainer:
    """The descriptor that the node has now."""

    op: int
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Refuse:
    """The operation did not happen."""

    op: int
    code: ErrorCode
    text: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Sweep:
    """Take away what is older than ``cutoffs``, at most ``limit`` of each kind."""

    cutoffs: Cutoffs
    limit: int


Effect = (
    Load | LoadContainer | Receive | Store | Discard | Answer | AnswerContainer | Refuse | Sweep
)
