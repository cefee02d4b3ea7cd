"""What is legal where: the phases of a connection, and who may send what in each of them.

Everything that does not stand here is refused. The phases and their moves are one literal table;
the rules of frames are another; which states and roles a frame or message belongs to comes from the
registry.

Source: spec/PROTOCOL.md, "States".
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from functools import cache
from typing import NamedTuple

import alpyne_proto.messages  # noqa: F401 - fills the registry
from alpyne_proto.errors import LocalProtocolError
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.messages import control
from alpyne_proto.registry import MESSAGES, Message, Role, Shape, Spec, State


class Phase(Enum):
    """Where a connection stands, as one side sees it."""

    __hash__ = object.__hash__  # looked up for each frame; by name, as an Enum does, is slower

    PREFACE = "preface"  # acceptor: waits for the dialler's preface
    MESSAGE_1 = "message 1"  # acceptor: waits for Noise message 1
    MESSAGE_2 = "message 2"  # dialler: waits for Noise message 2
    MESSAGE_3 = "message 3"  # acceptor: waits for Noise message 3
    SETTLING = "settling"  # keys are there; the acceptor has not yet said what they may do
    UNKNOWN = "unknown"
    BEARER = "bearer"
    OPEN = "open"
    CLOSED = "closed"


class Step(Enum):
    """What moves a connection from one phase to another."""

    PREFACE_TAKEN = "preface taken"
    MESSAGE_1_TAKEN = "message 1 taken"
    MESSAGE_2_TAKEN = "message 2 taken"
    MESSAGE_3_TAKEN = "message 3 taken"
    SET_UNKNOWN = "SETTINGS: UNKNOWN"
    SET_BEARER = "SETTINGS: BEARER"
    SET_OPEN = "SETTINGS: OPEN"
    CLOSE = "CLOSE, an error, or the end of the transport"


MOVES: Mapping[tuple[Phase, Step], Phase] = {
    (Phase.PREFACE, Step.PREFACE_TAKEN): Phase.MESSAGE_1,
    (Phase.PREFACE, Step.CLOSE): Phase.CLOSED,
    (Phase.MESSAGE_1, Step.MESSAGE_1_TAKEN): Phase.MESSAGE_3,
    (Phase.MESSAGE_1, Step.CLOSE): Phase.CLOSED,
    (Phase.MESSAGE_2, Step.MESSAGE_2_TAKEN): Phase.SETTLING,
    (Phase.MESSAGE_2, Step.CLOSE): Phase.CLOSED,
    (Phase.MESSAGE_3, Step.MESSAGE_3_TAKEN): Phase.SETTLING,
    (Phase.MESSAGE_3, Step.CLOSE): Phase.CLOSED,
    (Phase.SETTLING, Step.SET_UNKNOWN): Phase.UNKNOWN,
    (Phase.SETTLING, Step.SET_OPEN): Phase.OPEN,
    (Phase.SETTLING, Step.CLOSE): Phase.CLOSED,
    (Phase.UNKNOWN, Step.SET_BEARER): Phase.BEARER,
    (Phase.UNKNOWN, Step.SET_OPEN): Phase.OPEN,
    (Phase.UNKNOWN, Step.CLOSE): Phase.CLOSED,
    (Phase.BEARER, Step.CLOSE): Phase.CLOSED,
    (Phase.OPEN, Step.SET_OPEN): Phase.OPEN,  # the account's role has changed
    (Phase.OPEN, Step.CLOSE): Phase.CLOSED,
}

STEP_TO: Mapping[State, Step] = {
    State.UNKNOWN: Step.SET_UNKNOWN,
    State.BEARER: Step.SET_BEARER,
    State.OPEN: Step.SET_OPEN,
}

STATES: Mapping[Phase, State] = {
    Phase.UNKNOWN: State.UNKNOWN,
    Phase.BEARER: State.BEARER,
    Phase.OPEN: State.OPEN,
}  # every other phase is HANDSHAKE to the registry


class Side(IntEnum):
    """Who sends: the side that dialled, or the one that accepted."""

    DIALLER = 1
    ACCEPTOR = 2

    @property
    def other(self) -> "Side":
        return Side.ACCEPTOR if self is Side.DIALLER else Side.DIALLER


class Scope(Enum):
    """What the number in a frame's header names."""

    CONNECTION = "0"
    STREAM = "stream id"
    INTERRUPT = "interrupt id"


class Rule(NamedTuple):
    """How a frame of one type must look, before anybody asks what it means."""

    scope: Scope
    flags: Flags  # those it may have
    has_payload: bool
    meta: type[Message] | Shape | None  # a control message, a shape with a code of its own, or none


RULES: Mapping[FrameType, Rule] = {
    FrameType.PAD: Rule(Scope.CONNECTION, Flags.NONE, True, None),
    FrameType.SETTINGS: Rule(Scope.CONNECTION, Flags.NONE, False, control.Settings),
    FrameType.PING: Rule(Scope.CONNECTION, Flags.ACK, False, control.Ping),
    FrameType.GOAWAY: Rule(Scope.CONNECTION, Flags.NONE, False, control.GoAway),
    FrameType.CLOSE: Rule(Scope.CONNECTION, Flags.NONE, False, control.Close),
    FrameType.MAX_DATA: Rule(Scope.CONNECTION, Flags.NONE, False, control.MaxData),
    FrameType.MAX_STREAMS: Rule(Scope.CONNECTION, Flags.NONE, False, control.MaxStreams),
    FrameType.REQUEST: Rule(Scope.STREAM, Flags.END | Flags.ZSTD | Flags.ACK, True, Shape.REQUEST),
    FrameType.RESPONSE: Rule(Scope.STREAM, Flags.END | Flags.ZSTD, True, Shape.RESPONSE),
    FrameType.DATA: Rule(Scope.STREAM, Flags.END | Flags.ZSTD | Flags.MORE, True, Shape.TRAILER),
    FrameType.RESET: Rule(Scope.STREAM, Flags.NONE, False, control.Reset),
    FrameType.STOP: Rule(Scope.STREAM, Flags.NONE, False, control.Stop),
    FrameType.MAX_STREAM_DATA: Rule(Scope.STREAM, Flags.NONE, False, control.MaxStreamData),
    FrameType.REQ_ACK: Rule(Scope.STREAM, Flags.NONE, False, None),
    FrameType.INTERRUPT: Rule(Scope.INTERRUPT, Flags.NONE, False, Shape.INTERRUPT),
    FrameType.INTERRUPT_ACK: Rule(Scope.INTERRUPT, Flags.NONE, False, None),
}  # RESUME and PRIORITY have numbers and no rule: nobody may send them yet

# Frames without a message of their own take the states of the messages that they serve.
_SERVES: Mapping[FrameType, type[Message]] = {
    FrameType.PAD: control.Ping,
    FrameType.REQ_ACK: control.Reset,
    FrameType.DATA: control.BodyDigest,
}
_ACCEPTOR_ONLY = frozenset({FrameType.SETTINGS})


@cache
def legal_frames(state: State, sender: Side) -> frozenset[FrameType]:
    """Return the types of frames that ``sender`` may send in ``state``."""
    return frozenset(
        type
        for type in RULES
        if state in _states_of(type) and (sender is Side.ACCEPTOR or type not in _ACCEPTOR_ONLY)
    )


def _states_of(type: FrameType) -> frozenset[State]:
    meta = RULES[type].meta
    if type in _SERVES:
        return _SERVES[type].SPEC.states
    if isinstance(meta, Shape):
        return _states_of_shape(meta)
    if meta is None:  # INTERRUPT_ACK
        return _states_of_shape(Shape.INTERRUPT)
    return meta.SPEC.states


def _states_of_shape(shape: Shape) -> frozenset[State]:
    states: frozenset[State] = frozenset()
    return states.union(*(spec.states for spec in MESSAGES.values() if spec.shape is shape))


@cache
def legal_messages(state: State, roles: Role, shape: Shape) -> Mapping[int, Spec]:
    """Return, by code, the messages of ``shape`` that a peer with ``roles`` may send."""
    return {
        code: spec
        for code, spec in MESSAGES.items()
        if spec.shape is shape and state in spec.states and spec.senders & roles
    }


class PhaseMachine:
    """The phase of one connection; ``move`` is the only way to another."""

    __slots__ = ("_story", "phase", "state")

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.state = State.HANDSHAKE  # the phase as the registry knows it; stays when closed
        self._story: list[str] = [phase.value]

    def may(self, step: Step) -> bool:
        """Whether ``step`` is legal now."""
        return (self.phase, step) in MOVES

    def move(self, step: Step) -> None:
        """Take ``step``; LocalProtocolError, telling the story so far, where it is not legal."""
        following = MOVES.get((self.phase, step))
        if following is None:
            raise LocalProtocolError(
                f"connection: {step.value!r} is not legal after {' -> '.join(self._story)}"
            )
        self.phase = following
        self.state = STATES.get(following, self.state)
        self._story = [*self._story[-7:], following.value]
