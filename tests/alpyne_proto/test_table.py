"""What is legal where, written out: the tables must say exactly this, and refuse all else."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from alpyne_proto.codec import encode
from alpyne_proto.errors import ErrorCode, LocalProtocolError
from alpyne_proto.events import ConnectionClosed
from alpyne_proto.frame import FrameType, pack
from alpyne_proto.messages import control
from alpyne_proto.registry import MESSAGES, Role, Shape, State
from alpyne_proto.table import (
    MOVES,
    Phase,
    PhaseMachine,
    Side,
    Step,
    legal_frames,
    legal_messages,
)

HANDSHAKE, UNKNOWN, BEARER, OPEN = State.HANDSHAKE, State.UNKNOWN, State.BEARER, State.OPEN
DIALLER, ACCEPTOR = Side.DIALLER, Side.ACCEPTOR
NODE, MANAGER = Role.NODE, Role.MANAGER

LEGAL_FRAMES = {
    (HANDSHAKE, ACCEPTOR, "SETTINGS"),
    (HANDSHAKE, ACCEPTOR, "CLOSE"),
    (HANDSHAKE, DIALLER, "CLOSE"),
    (UNKNOWN, DIALLER, "PAD"),
    (UNKNOWN, DIALLER, "PING"),
    (UNKNOWN, DIALLER, "GOAWAY"),
    (UNKNOWN, DIALLER, "CLOSE"),
    (UNKNOWN, DIALLER, "MAX_DATA"),
    (UNKNOWN, DIALLER, "MAX_STREAMS"),
    (UNKNOWN, DIALLER, "REQUEST"),
    (UNKNOWN, DIALLER, "RESPONSE"),
    (UNKNOWN, DIALLER, "DATA"),
    (UNKNOWN, DIALLER, "RESET"),
    (UNKNOWN, DIALLER, "STOP"),
    (UNKNOWN, DIALLER, "MAX_STREAM_DATA"),
    (UNKNOWN, DIALLER, "REQ_ACK"),
    (UNKNOWN, ACCEPTOR, "PAD"),
    (UNKNOWN, ACCEPTOR, "SETTINGS"),
    (UNKNOWN, ACCEPTOR, "PING"),
    (UNKNOWN, ACCEPTOR, "GOAWAY"),
    (UNKNOWN, ACCEPTOR, "CLOSE"),
    (UNKNOWN, ACCEPTOR, "MAX_DATA"),
    (UNKNOWN, ACCEPTOR, "MAX_STREAMS"),
    (UNKNOWN, ACCEPTOR, "REQUEST"),
    (UNKNOWN, ACCEPTOR, "RESPONSE"),
    (UNKNOWN, ACCEPTOR, "DATA"),
    (UNKNOWN, ACCEPTOR, "RESET"),
    (UNKNOWN, ACCEPTOR, "STOP"),
    (UNKNOWN, ACCEPTOR, "MAX_STREAM_DATA"),
    (UNKNOWN, ACCEPTOR, "REQ_ACK"),
    (BEARER, DIALLER, "PAD"),
    (BEARER, DIALLER, "PING"),
    (BEARER, DIALLER, "GOAWAY"),
    (BEARER, DIALLER, "CLOSE"),
    (BEARER, DIALLER, "MAX_DATA"),
    (BEARER, DIALLER, "MAX_STREAMS"),
    (BEARER, DIALLER, "REQUEST"),
    (BEARER, DIALLER, "RESPONSE"),
    (BEARER, DIALLER, "DATA"),
    (BEARER, DIALLER, "RESET"),
    (BEARER, DIALLER, "STOP"),
    (BEARER, DIALLER, "MAX_STREAM_DATA"),
    (BEARER, DIALLER, "REQ_ACK"),
    (BEARER, ACCEPTOR, "PAD"),
    (BEARER, ACCEPTOR, "SETTINGS"),
    (BEARER, ACCEPTOR, "PING"),
    (BEARER, ACCEPTOR, "GOAWAY"),
    (BEARER, ACCEPTOR, "CLOSE"),
    (BEARER, ACCEPTOR, "MAX_DATA"),
    (BEARER, ACCEPTOR, "MAX_STREAMS"),
    (BEARER, ACCEPTOR, "REQUEST"),
    (BEARER, ACCEPTOR, "RESPONSE"),
    (BEARER, ACCEPTOR, "DATA"),
    (BEARER, ACCEPTOR, "RESET"),
    (BEARER, ACCEPTOR, "STOP"),
    (BEARER, ACCEPTOR, "MAX_STREAM_DATA"),
    (BEARER, ACCEPTOR, "REQ_ACK"),
    (OPEN, DIALLER, "PAD"),
    (OPEN, DIALLER, "PING"),
    (OPEN, DIALLER, "GOAWAY"),
    (OPEN, DIALLER, "CLOSE"),
    (OPEN, DIALLER, "MAX_DATA"),
    (OPEN, DIALLER, "MAX_STREAMS"),
    (OPEN, DIALLER, "REQUEST"),
    (OPEN, DIALLER, "RESPONSE"),
    (OPEN, DIALLER, "DATA"),
    (OPEN, DIALLER, "RESET"),
    (OPEN, DIALLER, "STOP"),
    (OPEN, DIALLER, "MAX_STREAM_DATA"),
    (OPEN, DIALLER, "REQ_ACK"),
    (OPEN, DIALLER, "INTERRUPT"),
    (OPEN, DIALLER, "INTERRUPT_ACK"),
    (OPEN, ACCEPTOR, "PAD"),
    (OPEN, ACCEPTOR, "SETTINGS"),
    (OPEN, ACCEPTOR, "PING"),
    (OPEN, ACCEPTOR, "GOAWAY"),
    (OPEN, ACCEPTOR, "CLOSE"),
    (OPEN, ACCEPTOR, "MAX_DATA"),
    (OPEN, ACCEPTOR, "MAX_STREAMS"),
    (OPEN, ACCEPTOR, "REQUEST"),
    (OPEN, ACCEPTOR, "RESPONSE"),
    (OPEN, ACCEPTOR, "DATA"),
    (OPEN, ACCEPTOR, "RESET"),
    (OPEN, ACCEPTOR, "STOP"),
    (OPEN, ACCEPTOR, "MAX_STREAM_DATA"),
    (OPEN, ACCEPTOR, "REQ_ACK"),
    (OPEN, ACCEPTOR, "INTERRUPT"),
    (OPEN, ACCEPTOR, "INTERRUPT_ACK"),
}

LEGAL_MESSAGES = {
    (UNKNOWN, MANAGER, "Register"),
    (UNKNOWN, MANAGER, "ShowTicket"),
    (UNKNOWN, MANAGER, "Done"),
    (UNKNOWN, MANAGER, "Error"),
    (UNKNOWN, MANAGER, "RowsFollow"),
    (UNKNOWN, MANAGER, "BodyDigest"),
    (UNKNOWN, NODE, "ShowTicket"),
    (UNKNOWN, NODE, "Registered"),
    (UNKNOWN, NODE, "TicketTaken"),
    (UNKNOWN, NODE, "Done"),
    (UNKNOWN, NODE, "Error"),
    (UNKNOWN, NODE, "RowsFollow"),
    (UNKNOWN, NODE, "BodyDigest"),
    (BEARER, MANAGER, "ShowTicket"),
    (BEARER, MANAGER, "PutObject"),
    (BEARER, MANAGER, "GetObject"),
    (BEARER, MANAGER, "StatObject"),
    (BEARER, MANAGER, "ListObjects"),
    (BEARER, MANAGER, "DeleteObject"),
    (BEARER, MANAGER, "Done"),
    (BEARER, MANAGER, "Error"),
    (BEARER, MANAGER, "RowsFollow"),
    (BEARER, MANAGER, "BodyDigest"),
    (BEARER, NODE, "ShowTicket"),
    (BEARER, NODE, "PutObject"),
    (BEARER, NODE, "GetObject"),
    (BEARER, NODE, "StatObject"),
    (BEARER, NODE, "ListObjects"),
    (BEARER, NODE, "DeleteObject"),
    (BEARER, NODE, "TicketTaken"),
    (BEARER, NODE, "ObjectInfo"),
    (BEARER, NODE, "Done"),
    (BEARER, NODE, "Error"),
    (BEARER, NODE, "RowsFollow"),
    (BEARER, NODE, "BodyDigest"),
    (OPEN, MANAGER, "Register"),
    (OPEN, MANAGER, "CreateInvitation"),
    (OPEN, MANAGER, "ListAccounts"),
    (OPEN, MANAGER, "RevokeAccount"),
    (OPEN, MANAGER, "RevokeDevice"),
    (OPEN, MANAGER, "GetStatus"),
    (OPEN, MANAGER, "SubmitJobs"),
    (OPEN, MANAGER, "PutBlob"),
    (OPEN, MANAGER, "SuspendJobs"),
    (OPEN, MANAGER, "ResumeJobs"),
    (OPEN, MANAGER, "CancelJobs"),
    (OPEN, MANAGER, "GetResult"),
    (OPEN, MANAGER, "SettleJobs"),
    (OPEN, MANAGER, "ListJobs"),
    (OPEN, MANAGER, "ReadOutput"),
    (OPEN, MANAGER, "Subscribe"),
    (OPEN, MANAGER, "PutContainer"),
    (OPEN, MANAGER, "GetContainer"),
    (OPEN, MANAGER, "ListContainers"),
    (OPEN, MANAGER, "PutObject"),
    (OPEN, MANAGER, "GetObject"),
    (OPEN, MANAGER, "StatObject"),
    (OPEN, MANAGER, "ListObjects"),
    (OPEN, MANAGER, "DeleteObject"),
    (OPEN, MANAGER, "Done"),
    (OPEN, MANAGER, "Error"),
    (OPEN, MANAGER, "RowsFollow"),
    (OPEN, MANAGER, "BodyDigest"),
    (OPEN, NODE, "Registered"),
    (OPEN, NODE, "Invitation"),
    (OPEN, NODE, "NodeStatus"),
    (OPEN, NODE, "ResultFollows"),
    (OPEN, NODE, "OutputFollows"),
    (OPEN, NODE, "Subscribed"),
    (OPEN, NODE, "PushEvents"),
    (OPEN, NODE, "ContainerInfo"),
    (OPEN, NODE, "ObjectInfo"),
    (OPEN, NODE, "PutObject"),
    (OPEN, NODE, "GetObject"),
    (OPEN, NODE, "StatObject"),
    (OPEN, NODE, "ListObjects"),
    (OPEN, NODE, "DeleteObject"),
    (OPEN, NODE, "Done"),
    (OPEN, NODE, "Error"),
    (OPEN, NODE, "RowsFollow"),
    (OPEN, NODE, "BodyDigest"),
}

LEGAL_MOVES = {
    ("preface", "preface taken", "message 1"),
    ("preface", "CLOSE, an error, or the end of the transport", "closed"),
    ("message 1", "message 1 taken", "message 3"),
    ("message 1", "CLOSE, an error, or the end of the transport", "closed"),
    ("message 2", "message 2 taken", "settling"),
    ("message 2", "CLOSE, an error, or the end of the transport", "closed"),
    ("message 3", "message 3 taken", "settling"),
    ("message 3", "CLOSE, an error, or the end of the transport", "closed"),
    ("settling", "SETTINGS: UNKNOWN", "unknown"),
    ("settling", "SETTINGS: OPEN", "open"),
    ("settling", "CLOSE, an error, or the end of the transport", "closed"),
    ("unknown", "SETTINGS: BEARER", "bearer"),
    ("unknown", "SETTINGS: OPEN", "open"),
    ("unknown", "CLOSE, an error, or the end of the transport", "closed"),
    ("bearer", "CLOSE, an error, or the end of the transport", "closed"),
    ("open", "SETTINGS: OPEN", "open"),
    ("open", "CLOSE, an error, or the end of the transport", "closed"),
}

STATES = (HANDSHAKE, UNKNOWN, BEARER, OPEN)
TRAVELLING = (Shape.REQUEST, Shape.RESPONSE, Shape.INTERRUPT, Shape.TRAILER)
MakeRaw = Callable[..., Any]


def test_frames_that_are_legal_are_the_list() -> None:
    stated = {
        (state, side, type.name)
        for state, side in product(STATES, Side)
        for type in legal_frames(state, side)
    }
    assert stated == LEGAL_FRAMES


def test_messages_that_are_legal_are_the_list() -> None:
    stated = {
        (state, role, spec.name)
        for state, role, shape in product(STATES, Role, TRAVELLING)
        for spec in legal_messages(state, role, shape).values()
    }
    assert stated == LEGAL_MESSAGES


def test_moves_of_a_connection_are_the_list() -> None:
    assert {(a.value, step.value, b.value) for (a, step), b in MOVES.items()} == LEGAL_MOVES


@pytest.mark.parametrize(("phase", "step"), list(product(Phase, Step)))
def test_phase_machine_refuses_what_the_table_does_not_have(phase: Phase, step: Step) -> None:
    machine = PhaseMachine(phase)
    if (phase, step) in MOVES:
        machine.move(step)
        assert machine.phase is MOVES[phase, step]
        return
    with pytest.raises(LocalProtocolError, match=phase.value):
        machine.move(step)
    assert machine.phase is phase


def test_peer_with_both_roles_may_send_what_either_may() -> None:
    both = {spec.name for spec in legal_messages(OPEN, NODE | MANAGER, Shape.REQUEST).values()}
    assert {"PushEvents", "SubmitJobs"} <= both


# --- the session keeps to the tables ----------------------------------------------------------


def well_formed(type: FrameType) -> bytes:
    """Return a frame of a type that passes every check but that of the table."""
    metas = {
        FrameType.SETTINGS: control.Settings(State.OPEN),
        FrameType.PING: control.Ping(1),
        FrameType.GOAWAY: control.GoAway(0),
        FrameType.CLOSE: control.Close(ErrorCode.NO_ERROR),
        FrameType.MAX_DATA: control.MaxData(1),
        FrameType.MAX_STREAMS: control.MaxStreams(1),
        FrameType.RESET: control.Reset(ErrorCode.NO_ERROR),
        FrameType.STOP: control.Stop(ErrorCode.NO_ERROR),
        FrameType.MAX_STREAM_DATA: control.MaxStreamData(1),
    }
    message = metas.get(type)
    return pack(type, 0, 0, encode(message) if message else b"")


def refused_by_table(raw: Any, data: bytes) -> bool:
    events = raw.send(data)
    if not events or not isinstance(events[-1], ConnectionClosed):
        return False
    return "not legal from the" in str(events[-1].error)


FRAME_CASES = [
    (state, side, type)
    for state, side, type in product(STATES, Side, FrameType)
    if state is not HANDSHAKE or side is ACCEPTOR  # what a dialler sends then is held
]


@pytest.mark.parametrize(("state", "side", "type"), FRAME_CASES)
def test_session_refuses_frames_that_the_list_does_not_have(
    make_raw: MakeRaw, state: State, side: Side, type: FrameType
) -> None:
    raw = make_raw(is_dialler=side is DIALLER, state=None if state is HANDSHAKE else state)
    legal = (state, side, type.name) in LEGAL_FRAMES
    assert refused_by_table(raw, well_formed(type)) is not legal
    if not legal:
        assert raw.session.closed
        (close,) = raw.receive()
        assert close.type == FrameType.CLOSE


@pytest.mark.parametrize("state", [UNKNOWN, BEARER, OPEN])
@pytest.mark.parametrize("is_dialler", [True, False])
def test_session_refuses_requests_that_the_list_does_not_have(
    make_raw: MakeRaw, make_message: Callable[[type], Any], state: State, is_dialler: bool
) -> None:
    role = MANAGER if is_dialler else NODE
    for spec in MESSAGES.values():
        if spec.shape is not Shape.REQUEST:
            continue
        raw = make_raw(is_dialler=is_dialler, state=state)
        meta = encode(make_message(spec.cls))
        events = raw.send(pack(FrameType.REQUEST, 1, 1 if is_dialler else 2, meta))
        if (state, role, spec.name) in LEGAL_MESSAGES:
            assert events[0].message.SPEC is spec
        else:
            assert events[0].error.code is ErrorCode.PROTOCOL_ERROR, spec.name


@pytest.mark.parametrize("state", [UNKNOWN, BEARER, OPEN])
@pytest.mark.parametrize("dialler", [True, False])
def test_session_does_not_send_requests_that_the_list_does_not_have(
    make_link: MakeRaw, make_message: Callable[[type], Any], state: State, dialler: bool
) -> None:
    link = make_link()
    link.open(state)
    session = link.dialler if dialler else link.acceptor
    role = MANAGER if dialler else NODE
    for spec in MESSAGES.values():
        if spec.shape is not Shape.REQUEST:
            continue
        message = make_message(spec.cls)
        if (state, role, spec.name) in LEGAL_MESSAGES:
            session.open_stream(message)
        else:
            with pytest.raises(LocalProtocolError, match=spec.name):
                session.open_stream(message)


def test_session_takes_and_sends_interrupts_only_when_open(
    make_link: MakeRaw, make_message: Callable[[type], Any]
) -> None:
    from_manager = [spec for spec in MESSAGES.values() if spec.shape is Shape.INTERRUPT]
    for state, spec in product((UNKNOWN, BEARER, OPEN), from_manager):
        link = make_link()
        link.open(state)
        message = make_message(spec.cls)
        if (state, MANAGER, spec.name) in LEGAL_MESSAGES:
            link.dialler.interrupt(message)
        else:
            with pytest.raises(LocalProtocolError):
                link.dialler.interrupt(message)
        with pytest.raises(LocalProtocolError):
            link.acceptor.interrupt(message)
