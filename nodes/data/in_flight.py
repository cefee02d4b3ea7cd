"""What is in flight on a data node: operations and the keys they write to."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from alpyne_grid.nodes.data.events import ContainerAsked, DeleteAsked, PutAsked
from alpyne_grid.nodes.data.records import Descriptor, ObjectKey, ObjectRecord, Staged

from alpyne_proto.errors import AlpyneError, ErrorCode

STORY = 8  # last events of an operation, for the error that a wrong one raises


class Phase(Enum):
    """Where an operation stands."""

    LOADING = "loading"
    RECEIVING = "receiving"
    WAITING = "waiting"  # for another operation on its key
    STORING = "storing"


class WrongEvent(AlpyneError):
    """An event came that has no place in its operation's phase; a defect of the caller."""

    code = ErrorCode.INTERNAL


Asked = PutAsked | DeleteAsked | ContainerAsked
SlotKey = ObjectKey | tuple[bytes, bytes]


@dataclass(slots=True)
class Operation:
    """A request that changes something, from when it is asked until it is answered."""

    asked: Asked
    phase: Phase
    story: deque[str]
    muted: bool = False  # nobody waits for the answer
    reserved: int = 0  # bytes of the account's quota
    staged: Staged | None = None
    outcome: ObjectRecord | Descriptor | None = None  # what is stored, once it is stored


@dataclass(slots=True)
class Slot:
    """A key with operations in flight, and what stands under it."""

    users: int = 0
    is_loaded: bool = False
    current: ObjectRecord | Descriptor | None = None
    storing: int | None = None  # the operation
    waiting: deque[int] = field(default_factory=deque)


def slot_key(asked: Asked) -> SlotKey:
    """Return what the operation writes to."""
    if isinstance(asked, ContainerAsked):
        return asked.owner, asked.descriptor.container_id
    return asked.key


# Where an operation may go next; it ends from anywhere.
_MOVES = {
    Phase.LOADING: {Phase.RECEIVING, Phase.WAITING, Phase.STORING},
    Phase.RECEIVING: {Phase.WAITING, Phase.STORING},
    Phase.WAITING: {Phase.STORING},
    Phase.STORING: set[Phase](),
}


def move(operation: Operation, phase: Phase) -> None:
    """Put ``operation`` into ``phase``. Raises WrongEvent for a move that is not in the table."""
    if phase not in _MOVES[operation.phase]:
        raise WrongEvent(
            f"object table: operation {operation.asked.op} cannot go from {operation.phase.value} "
            f"to {phase.value}; its last events: {', '.join(operation.story)}"
        )
    operation.phase = phase
