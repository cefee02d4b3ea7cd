"""One job in the manager's table: its phases, and the only moves between them."""

from dataclasses import dataclass, field
from enum import IntEnum

from alpyne_grid.manager.grid_events import Outcome, Plan

from alpyne_proto.errors import LocalProtocolError
from alpyne_proto.messages.compute import JobState

STORY = 12  # moves that a wrong move's error tells


class Phase(IntEnum):
    """Where a job is, seen from its manager."""

    WAITING = 1  # for a node; no execution of it is alive
    MINTING = 2  # it has a node; its next allocation is being committed
    SENT = 3  # submitted; the node has not answered
    ACCEPTED = 4  # durable at its node, waiting or starting there
    RUNNING = 5
    STRANDED = 6  # its node is lost: it moves, or that node comes back first
    FETCHING = 7  # finished; the result is too large to be pushed
    SETTLING = 8  # its result is here and is being committed
    ENDED = 9  # delivered


class Trigger(IntEnum):
    """Why a job moves."""

    PLACED = 1  # under allocation 1 of a reserved counter: nothing to commit
    PLACED_ANEW = 2  # under a higher allocation, which is committed before it is sent
    MINTED = 3
    ANSWERED = 4
    STARTED = 5
    FINISHED = 6
    FINISHED_LARGE = 7
    FETCHED = 8
    RERUN = 9  # this execution counts no more: it failed, was refused, or is forgotten
    NODE_LOST = 10
    NODE_BACK = 11
    GIVEN_UP = 12  # it ends by the manager's decision: cancelled, lost, refused, no node fits
    STORED = 13
    STORE_FAILED = 14
    ATTEMPTED_ANEW = 15  # its node has lost the result, and runs it again
    RESULT_BACK = 16  # NODE_BACK of a job that had finished there


_P, _T = Phase, Trigger
MOVES: dict[tuple[Phase, Trigger], Phase] = {
    (_P.WAITING, _T.PLACED): _P.SENT,
    (_P.WAITING, _T.PLACED_ANEW): _P.MINTING,
    (_P.WAITING, _T.GIVEN_UP): _P.SETTLING,
    (_P.MINTING, _T.MINTED): _P.SENT,
    (_P.MINTING, _T.GIVEN_UP): _P.SETTLING,
    (_P.MINTING, _T.STORE_FAILED): _P.ENDED,
    (_P.SENT, _T.ANSWERED): _P.ACCEPTED,
    (_P.SENT, _T.STARTED): _P.RUNNING,  # the event overtook the answer
    (_P.SENT, _T.FINISHED): _P.SETTLING,
    (_P.SENT, _T.FINISHED_LARGE): _P.FETCHING,
    (_P.SENT, _T.RERUN): _P.WAITING,
    (_P.SENT, _T.NODE_LOST): _P.STRANDED,
    (_P.SENT, _T.GIVEN_UP): _P.SETTLING,
    (_P.ACCEPTED, _T.STARTED): _P.RUNNING,
    (_P.ACCEPTED, _T.FINISHED): _P.SETTLING,
    (_P.ACCEPTED, _T.FINISHED_LARGE): _P.FETCHING,
    (_P.ACCEPTED, _T.RERUN): _P.WAITING,
    (_P.ACCEPTED, _T.NODE_LOST): _P.STRANDED,
    (_P.ACCEPTED, _T.GIVEN_UP): _P.SETTLING,
    (_P.RUNNING, _T.STARTED): _P.RUNNING,  # a new attempt after the node's restart
    (_P.RUNNING, _T.FINISHED): _P.SETTLING,
    (_P.RUNNING, _T.FINISHED_LARGE): _P.FETCHING,
    (_P.RUNNING, _T.RERUN): _P.WAITING,
    (_P.RUNNING, _T.NODE_LOST): _P.STRANDED,
    (_P.RUNNING, _T.GIVEN_UP): _P.SETTLING,
    (_P.STRANDED, _T.PLACED_ANEW): _P.MINTING,
    (_P.STRANDED, _T.NODE_BACK): _P.SENT,  # until its node says more
    (_P.STRANDED, _T.RESULT_BACK): _P.FETCHING,
    (_P.STRANDED, _T.RERUN): _P.WAITING,
    (_P.STRANDED, _T.GIVEN_UP): _P.SETTLING,
    (_P.FETCHING, _T.FETCHED): _P.SETTLING,
    (_P.FETCHING, _T.ATTEMPTED_ANEW): _P.ACCEPTED,
    (_P.FETCHING, _T.RERUN): _P.WAITING,
    (_P.FETCHING, _T.NODE_LOST): _P.STRANDED,
    (_P.FETCHING, _T.GIVEN_UP): _P.SETTLING,
    (_P.SETTLING, _T.STORED): _P.ENDED,
    (_P.SETTLING, _T.STORE_FAILED): _P.ENDED,
}


@dataclass(slots=True)
class GridJob:
    """A job that is not yet delivered."""

    plan: Plan
    added_at: float
    phase: Phase = Phase.WAITING
    node: bytes | None = None  # of its current allocation
    allocation: int = 0  # of the newest execution; 0: none yet
    attempt: int = 0
    answered: bool = False  # the node has acknowledged the current allocation
    moves: int = 0
    tries: int = 0  # executions that failed and were tried anew
    cancelled: bool = False
    pause: bool | None = None  # what the program wants: True to pause, False to go on
    heard: JobState = JobState.QUEUED  # of the execution that goes on, as its node last said
    without: frozenset[bytes] = frozenset()  # nodes that refused it
    outcome: Outcome | None = None  # from SETTLING on
    story: bytearray = field(default_factory=bytearray)  # last triggers

    def move(self, trigger: Trigger) -> None:
        """Make the one move that ``trigger`` means in this phase; LocalProtocolError for others."""
        after = MOVES.get((self.phase, trigger))
        if after is None:
            told = " ".join(Trigger(number).name for number in self.story)
            raise LocalProtocolError(
                f"job {self.plan.job_id.hex()}: {trigger.name} in {self.phase.name} after {told}"
            )
        self.story.append(trigger)
        if len(self.story) > STORY:
            del self.story[0]
        self.phase = after
