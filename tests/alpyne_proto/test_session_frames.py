"""Each violation by a frame has its named error, and ends the connection with CLOSE."""

from collections.abc import Callable
from typing import Any

import pytest

from alpyne_proto.codec import decode_as, encode
from alpyne_proto.errors import ErrorCode, RemoteProtocolError
from alpyne_proto.events import ConnectionClosed, DataReceived, RequestReceived
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.limits import META_MAX
from alpyne_proto.messages import control
from alpyne_proto.messages.access import CreateInvitation, GetStatus
from alpyne_proto.messages.compute import CancelJobs
from alpyne_proto.messages.control import BodyDigest, Done
from alpyne_proto.messages.data import ObjectInfo, PutObject, StatObject
from alpyne_proto.registry import State

PUT = PutObject(b"c" * 16, "path", 1, b"w" * 16, 1 << 20)
DIGEST = BodyDigest(b"h" * 32)
STAT = encode(StatObject(b"c" * 16, "path"))
F, E = FrameType, ErrorCode
Make = Callable[..., Any]
END, ACK, ZSTD, MORE = Flags.END, Flags.ACK, Flags.ZSTD, Flags.MORE


def data(offset: int, *parts: bytes) -> bytes:
    return offset.to_bytes(8) + b"".join(parts)


# name: (frames, error). The peer has opened stream 1, a PutObject whose body goes on; the session
# has opened stream 2, a PutObject whose body goes on, and stream 4, a StatObject.
VIOLATIONS: dict[str, tuple[Callable[[Make], list[bytes]], ErrorCode]] = {
    "meta that ends behind its record": (
        lambda f: [f(F.PING, message=control.Ping(1))[:-1]],
        E.FRAME_ERROR,
    ),
    "a record with less than a header at its end": (
        lambda f: [f(F.PAD), b"\x00" * 11],
        E.FRAME_ERROR,
    ),
    "meta over its maximum": (lambda f: [f(0x41, meta=bytes(META_MAX + 1))], E.FRAME_ERROR),
    "unknown even type": (lambda f: [f(0x40)], E.FRAME_ERROR),
    "reserved type RESUME": (lambda f: [f(F.RESUME)], E.FRAME_ERROR),
    "reserved type PRIORITY": (lambda f: [f(F.PRIORITY, 1)], E.FRAME_ERROR),
    "SETTINGS from a dialler": (
        lambda f: [f(F.SETTINGS, message=control.Settings(State.OPEN))],
        E.FRAME_ERROR,
    ),
    "a flag that the type does not have": (
        lambda f: [f(F.PAD, flags=END)],
        E.FRAME_ERROR,
    ),
    "a flag that nobody knows": (
        lambda f: [f(F.REQUEST, 3, flags=END | 0x10, meta=STAT)],
        E.FRAME_ERROR,
    ),
    "PING on a stream": (lambda f: [f(F.PING, 1, message=control.Ping(1))], E.FRAME_ERROR),
    "PING with a payload": (
        lambda f: [f(F.PING, 0, b"x", message=control.Ping(1))],
        E.FRAME_ERROR,
    ),
    "PAD with meta": (lambda f: [f(F.PAD, meta=b"\x80")], E.FRAME_ERROR),
    "answer to a ping that was not sent": (
        lambda f: [f(F.PING, flags=ACK, message=control.Ping(1))],
        E.FRAME_ERROR,
    ),
    "REQ_ACK that nobody asked for": (lambda f: [f(F.REQ_ACK, 2)], E.FRAME_ERROR),
    "REQ_ACK twice": (lambda f: 2 * [f(F.REQ_ACK, 4)], E.FRAME_ERROR),
    "REQ_ACK with meta": (lambda f: [f(F.REQ_ACK, 2, meta=b"\x80")], E.FRAME_ERROR),
    "INTERRUPT_ACK without interrupt": (lambda f: [f(F.INTERRUPT_ACK, 1)], E.FRAME_ERROR),
    "INTERRUPT 0": (
        lambda f: [f(F.INTERRUPT, 0, message=CancelJobs((b"j" * 16,)))],
        E.FRAME_ERROR,
    ),
    "INTERRUPT over 1 KiB": (
        lambda f: [f(F.INTERRUPT, 1, meta=bytes(1013))],
        E.FRAME_ERROR,
    ),
    "no meta where one is needed": (lambda f: [f(F.PING)], E.CODEC_ERROR),
    "meta that is no map": (lambda f: [f(F.PING, meta=b"\x01")], E.CODEC_ERROR),
    "bytes behind the map": (
        lambda f: [f(F.PING, meta=encode(control.Ping(1)) + b"\x00")],
        E.CODEC_ERROR,
    ),
    "a key twice": (lambda f: [f(F.PING, meta=b"\x82\x02\x01\x02\x01")], E.CODEC_ERROR),
    "keys that fall": (lambda f: [f(F.RESET, 1, meta=b"\x82\x05\xa0\x02\x01")], E.CODEC_ERROR),
    "an unknown even key": (lambda f: [f(F.PING, meta=b"\x82\x02\x01\x04\x01")], E.CODEC_ERROR),
    "a missing field": (lambda f: [f(F.PING, meta=b"\x80")], E.CODEC_ERROR),
    "a value out of bounds": (lambda f: [f(F.PING, meta=b"\x81\x02\xff")], E.CODEC_ERROR),
    "an unknown error code": (lambda f: [f(F.RESET, 1, meta=b"\x81\x02\xcc\xc8")], E.CODEC_ERROR),
    "nested too deep": (
        lambda f: [f(F.PING, meta=b"\x81\x02" + b"\x91" * 9 + b"\xc0")],
        E.CODEC_ERROR,
    ),
    "a message code that nobody knows": (
        lambda f: [f(F.REQUEST, 3, flags=END, meta=b"\x81\x00\xcd\x03\xe7")],
        E.CODEC_ERROR,
    ),
    "a response as a request": (
        lambda f: [f(F.REQUEST, 3, flags=END, message=Done())],
        E.CODEC_ERROR,
    ),
    "a request that a node may not have from a manager": (
        lambda f: [f(F.REQUEST, 3, flags=END, meta=b"\x82\x00\x34\x02\x01")],
        E.PROTOCOL_ERROR,
    ),
    "REQUEST on an id that was used": (
        lambda f: [f(F.REQUEST, 1, flags=END, meta=STAT)],
        E.FRAME_ERROR,
    ),
    "REQUEST that leaves an id out": (
        lambda f: [f(F.REQUEST, 5, flags=END, meta=STAT)],
        E.FRAME_ERROR,
    ),
    "REQUEST on an id of ours": (
        lambda f: [f(F.REQUEST, 6, flags=END, meta=STAT)],
        E.FRAME_ERROR,
    ),
    "REQUEST on stream 0": (lambda f: [f(F.REQUEST, 0, flags=END, meta=STAT)], E.FRAME_ERROR),
    "a body behind a message without one": (
        lambda f: [f(F.REQUEST, 3, b"x", flags=END, meta=STAT)],
        E.FRAME_ERROR,
    ),
    "a message without a body that does not end": (
        lambda f: [f(F.REQUEST, 3, meta=STAT)],
        E.FRAME_ERROR,
    ),
    "RESPONSE to a request of its own": (
        lambda f: [f(F.RESPONSE, 1, flags=END, message=ObjectInfo(1))],
        E.FRAME_ERROR,
    ),
    "RESPONSE to nothing": (
        lambda f: [f(F.RESPONSE, 6, flags=END, message=ObjectInfo(1))],
        E.FRAME_ERROR,
    ),
    "a second RESPONSE": (
        lambda f: 2 * [f(F.RESPONSE, 2, flags=END, message=control.Error(E.NOT_FOUND))],
        E.FRAME_ERROR,
    ),
    "a RESPONSE that does not answer": (
        lambda f: [f(F.RESPONSE, 2, flags=END, message=Done())],
        E.PROTOCOL_ERROR,
    ),
    "a RESPONSE that its sender may not send": (
        lambda f: [f(F.RESPONSE, 4, flags=END, message=ObjectInfo(1))],
        E.PROTOCOL_ERROR,
    ),
    "a body behind a RESPONSE without one": (
        lambda f: [f(F.RESPONSE, 2, b"x", flags=END, message=control.Error(E.NOT_FOUND))],
        E.FRAME_ERROR,
    ),
    "a RESPONSE without a body that does not end": (
        lambda f: [f(F.RESPONSE, 2, message=control.Error(E.NOT_FOUND))],
        E.FRAME_ERROR,
    ),
    "DATA before the RESPONSE": (lambda f: [f(F.DATA, 2, data(0, b"x"))], E.FRAME_ERROR),
    "DATA without an offset": (lambda f: [f(F.DATA, 1, b"1234567")], E.FRAME_ERROR),
    "DATA that leaves bytes out": (lambda f: [f(F.DATA, 1, data(1, b"x"))], E.FRAME_ERROR),
    "DATA that repeats bytes": (
        lambda f: [f(F.DATA, 1, data(0, b"x")), f(F.DATA, 1, data(0, b"x"))],
        E.FRAME_ERROR,
    ),
    "DATA with nothing in it": (lambda f: [f(F.DATA, 1, data(0))], E.FRAME_ERROR),
    "DATA behind the end": (
        lambda f: [f(F.DATA, 1, data(0, b"x"), flags=END), f(F.DATA, 1, data(1, b"x"))],
        E.FRAME_ERROR,
    ),
    "DATA behind a RESET": (
        lambda f: [
            f(F.RESET, 1, message=control.Reset(E.CANCELLED)),
            f(F.DATA, 1, data(0, b"x")),
        ],
        E.FRAME_ERROR,
    ),
    "DATA on a stream that was never opened": (
        lambda f: [f(F.DATA, 3, data(0, b"x"))],
        E.FRAME_ERROR,
    ),
    "DATA on stream 0": (lambda f: [f(F.DATA, 0, data(0, b"x"))], E.FRAME_ERROR),
    "a trailer before the end": (
        lambda f: [f(F.DATA, 1, data(0, b"x"), message=DIGEST)],
        E.FRAME_ERROR,
    ),
    "a trailer that is none": (
        lambda f: [f(F.DATA, 1, data(0, b"x"), flags=END, message=Done())],
        E.CODEC_ERROR,
    ),
    "RESET twice": (
        lambda f: 2 * [f(F.RESET, 1, message=control.Reset(E.CANCELLED))],
        E.FRAME_ERROR,
    ),
    "RESET behind the end": (
        lambda f: [
            f(F.DATA, 1, data(0), flags=END),
            f(F.RESET, 1, message=control.Reset(E.CANCELLED)),
        ],
        E.FRAME_ERROR,
    ),
    "RESET of a stream far ahead": (
        lambda f: [f(F.RESET, 7, message=control.Reset(E.CANCELLED))],
        E.FRAME_ERROR,
    ),
    "STOP of a stream that was never opened": (
        lambda f: [f(F.STOP, 6, message=control.Stop(E.CANCELLED))],
        E.FRAME_ERROR,
    ),
    "credit for a stream that was never opened": (
        lambda f: [f(F.MAX_STREAM_DATA, 3, message=control.MaxStreamData(1))],
        E.FRAME_ERROR,
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_session_closes_with_the_named_error_when_a_frame_is_wrong(
    raw: Any, frame: Make, closing: Make, name: str
) -> None:
    make_frames, code = VIOLATIONS[name]
    raw.send(frame(F.REQUEST, 1, message=PUT))
    raw.session.open_stream(PUT, end=False)
    raw.session.open_stream(StatObject(b"c" * 16, "path"), want_ack=True)
    raw.receive()
    error = closing(raw.send(*make_frames(frame)))
    assert isinstance(error, RemoteProtocolError)
    assert error.code is code
    assert str(error)
    (last,) = raw.receive()
    assert last.type == F.CLOSE
    close = decode_as(last.meta, control.Close, lenient=False)
    assert close.code is code
    assert close.text == str(error)[:512]


def test_session_takes_each_of_these_frames_when_they_are_right(raw: Any, frame: Make) -> None:
    """The other half of the test above: what it changes was legal before."""
    raw.send(frame(F.REQUEST, 1, message=PUT))
    raw.session.open_stream(PUT, end=False, want_ack=True)
    raw.receive()
    events = raw.send(
        frame(F.PAD, payload=b"anything"),
        frame(F.PING, message=control.Ping(1)),
        frame(F.DATA, 1, data(0, b"x"), flags=MORE),
        frame(F.DATA, 1, data(1, b"y"), flags=END, message=DIGEST),
        frame(F.REQUEST, 3, flags=END | ACK, meta=STAT),
        frame(F.RESET, 5, message=control.Reset(E.CANCELLED)),
        frame(F.REQUEST, 7, flags=END, meta=STAT),
        frame(F.REQ_ACK, 2),
        frame(F.INTERRUPT, 9, message=CancelJobs((b"j" * 16,))),
        frame(F.MAX_DATA, message=control.MaxData(1)),
        frame(F.MAX_STREAMS, message=control.MaxStreams(1)),
        frame(F.MAX_STREAM_DATA, 2, message=control.MaxStreamData(1)),
        frame(F.STOP, 2, message=control.Stop(E.CANCELLED)),
        frame(F.RESET, 2, message=control.Reset(E.CANCELLED)),
        frame(F.GOAWAY, message=control.GoAway(2)),
    )
    assert not raw.session.closed
    assert [type(event).__name__ for event in events] == [
        "InterruptReceived",
        "DataReceived",
        "DataReceived",
        "RequestReceived",
        "RequestReceived",
        "RequestAcked",
        "StopReceived",
        "StreamReset",
        "GoAwayReceived",
    ]
    types = [F(one.type).name for one in raw.receive()]
    assert types == ["PING", "REQ_ACK", "INTERRUPT_ACK", "RESET"]


def test_events_before_the_violation_stand(raw: Any, frame: Make) -> None:
    events = raw.send(frame(F.REQUEST, 1, flags=END, meta=STAT), frame(0x40))
    assert [type(event) for event in events] == [RequestReceived, ConnectionClosed]


# --- odd and even -----------------------------------------------------------------------------


def test_open_session_skips_unknown_odd_frames_and_keys(raw: Any, frame: Make) -> None:
    meta = encode(CreateInvitation(60))
    odd_key = bytes((meta[0] + 1,)) + meta[1:] + b"\x63\xa1x"
    events = raw.send(
        frame(0x41, 77, b"whatever", flags=0xFF, meta=b"\xc1"),
        frame(F.REQUEST, 1, flags=END, meta=odd_key),
    )
    assert events == [RequestReceived(1, CreateInvitation(60), b"", True)]


@pytest.mark.parametrize("state", [State.UNKNOWN, State.BEARER])
def test_session_that_is_not_open_refuses_unknown_odd_frames_and_keys(
    make_raw: Make, frame: Make, closing: Make, state: State
) -> None:
    assert closing(make_raw(state=state).send(frame(0x41))).code is E.FRAME_ERROR
    odd_key = b"\x82\x02\x01\x63\xc0"
    assert closing(make_raw(state=state).send(frame(F.PING, meta=odd_key))).code is E.CODEC_ERROR


def test_settings_with_an_odd_key_are_refused_before_the_state_is_open(
    make_raw: Make, frame: Make, closing: Make
) -> None:
    raw = make_raw(is_dialler=False, state=None)
    meta = encode(control.Settings(State.OPEN))
    events = raw.send(frame(F.SETTINGS, meta=bytes((meta[0] + 1,)) + meta[1:] + b"\x63\xc0"))
    assert closing(events).code is E.CODEC_ERROR


@pytest.mark.parametrize("state", [State.HANDSHAKE, State.BEARER, State.WORKER])
def test_dialler_refuses_settings_to_a_state_that_does_not_follow(
    make_raw: Make, frame: Make, closing: Make, state: State
) -> None:
    raw = make_raw(is_dialler=False, state=None)
    events = raw.send(frame(F.SETTINGS, message=control.Settings(state)))
    assert closing(events).code is E.PROTOCOL_ERROR


def test_dialler_refuses_settings_back_to_unknown(
    make_raw: Make, frame: Make, closing: Make
) -> None:
    raw = make_raw(is_dialler=False, state=State.OPEN)
    events = raw.send(frame(F.SETTINGS, message=control.Settings(State.UNKNOWN)))
    assert closing(events).code is E.PROTOCOL_ERROR


# --- payloads ---------------------------------------------------------------------------------


def test_payload_is_a_view_only_where_it_is_most_of_its_record(raw: Any, frame: Make) -> None:
    raw.send(frame(F.REQUEST, 1, message=PUT))
    large = bytes(range(256)) * 160
    (big,) = raw.send(frame(F.DATA, 1, data(0, large)))
    assert isinstance(big, DataReceived)
    assert type(big.data) is memoryview
    assert big.data == large
    (small,) = raw.send(frame(F.DATA, 1, data(40960, b"x")), frame(F.PAD, payload=bytes(60_000)))
    assert type(small.data) is bytes
    assert small.data == b"x"


def test_session_ends_without_error_when_the_peer_closes_cleanly(raw: Any, frame: Make) -> None:
    events = raw.send(
        frame(F.CLOSE, message=control.Close(E.NO_ERROR)),
        frame(F.REQUEST, 1, flags=END, message=GetStatus()),
    )
    assert events == [ConnectionClosed(None)]
    assert raw.session.next_record(0.0) is None
    assert raw.session.receive_data(b"more", 0.0) == []


def test_session_tells_the_peers_reason_when_it_closes_with_one(
    raw: Any, frame: Make, closing: Make
) -> None:
    raw.session.open_stream(StatObject(b"c" * 16, "path"))
    error = closing(raw.send(frame(F.CLOSE, message=control.Close(E.REVOKED, "gone"))))
    assert error.code is E.REVOKED
    assert "gone" in str(error)
    assert raw.receive() == []  # whoever sent CLOSE reads nothing more
