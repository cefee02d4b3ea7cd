"""Whatever frames a peer sends into an open session, it raises only what is documented.

The peer here has the keys: only the session's own checks stand between it and the node.
"""

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpyne_proto.codec import encode
from alpyne_proto.errors import AlpyneError, ConnectionLost, ErrorCode, RemoteProtocolError
from alpyne_proto.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
)
from alpyne_proto.frame import FrameType, pack
from alpyne_proto.limits import RECORD_PLAIN_MAX, STREAMS_MAX
from alpyne_proto.messages import control
from alpyne_proto.messages.control import Error
from alpyne_proto.messages.data import GetObject, ObjectInfo, PutObject
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello, NodeKind
from alpyne_proto.noise import HandshakeState
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import RecordWriter, encode_handshake, take_handshake
from alpyne_proto.registry import MESSAGES, Message, Shape, State
from alpyne_proto.session import Session, SessionConfig

Of = Callable[..., st.SearchStrategy[Message]]
NODE_PRIVATE, DEVICE_PRIVATE = b"\x11" * 32, b"\x22" * 32
PUT = PutObject(b"c" * 16, "path", 1, b"w" * 16, 1 << 20)
HELLO = AcceptorHello(NodeKind.DATA, bytes(16), bytes(16), 1, 1, bytes(32), codecs=1)
DOCUMENTED = {code for code in ErrorCode if 0 < code < 32} - {
    ErrorCode.HANDSHAKE_FAILED,
    ErrorCode.RECORD_ERROR,
    ErrorCode.TRUNCATED,
    ErrorCode.IDLE_TIMEOUT,
}
TRAVELLING = [
    spec.cls
    for spec in MESSAGES.values()
    if spec.shape in (Shape.REQUEST, Shape.RESPONSE, Shape.INTERRUPT, Shape.TRAILER)
]
CONTROL = {
    FrameType.PING: control.Ping,
    FrameType.GOAWAY: control.GoAway,
    FrameType.MAX_DATA: control.MaxData,
    FrameType.MAX_STREAMS: control.MaxStreams,
    FrameType.RESET: control.Reset,
    FrameType.STOP: control.Stop,
    FrameType.MAX_STREAM_DATA: control.MaxStreamData,
    FrameType.SETTINGS: control.Settings,
}


class Peer:
    """A dialler that has the keys of an open session and says what it likes."""

    def __init__(self) -> None:
        config = SessionConfig(HELLO, NODE_PRIVATE, lambda size: b"\x44" * size)
        self.session = Session(config, 0.0)
        preface = Preface()
        public = bytes.fromhex("7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13")
        noise = HandshakeState(
            NOISE_NAME, True, preface.prologue, DEVICE_PRIVATE, b"\x33" * 32, public
        )
        first = preface.encode() + encode_handshake(noise.write_message())
        self.session.receive_data(first, 0.0)
        second = take_handshake(bytearray(self.session.next_record(0.0) or b""))
        assert second is not None
        noise.read_message(second)
        hello = DiallerHello(3, bytes(16), b"", codecs=1)
        self.session.receive_data(encode_handshake(noise.write_message(encode(hello))), 0.0)
        self.session.promote(State.OPEN)
        self._writer = RecordWriter(noise.split()[0])
        # Something to hit: a body of the peer, a body of ours, a request of ours.
        self.send(pack(FrameType.REQUEST, 0, 1, encode(PUT)))
        self.session.open_stream(PUT, bytes(1000), end=False, want_ack=True)
        self.session.open_stream(GetObject(b"c" * 16, "path"))
        self.drain()

    def send(self, *frames: bytes) -> list[Event]:
        return self.session.receive_data(self._writer.seal(frames), 0.0)

    def drain(self) -> Iterator[bytes]:
        return iter([bytes(r) for r in iter(lambda: self.session.next_record(0.0), None)])


@pytest.fixture(scope="session")
def make_peer() -> Callable[[], Peer]:
    return Peer


def ids() -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, 9), st.sampled_from([255, 2**31, 2**32 - 1]))


def payloads() -> st.SearchStrategy[bytes]:
    bodies = st.one_of(st.binary(max_size=40), st.just(bytes(5000)))
    offsets = st.sampled_from([0, 0, 1, 1000, 2**64 - 1])
    with_offset = st.builds(lambda at, body: at.to_bytes(8) + body, offsets, bodies)
    return st.one_of(st.just(b""), with_offset, bodies)


def control_frames(of: Of) -> st.SearchStrategy[bytes]:
    return st.sampled_from(sorted(CONTROL)).flatmap(
        lambda type: st.builds(
            lambda message, number, flags: pack(type, flags, number, encode(message)),
            of(CONTROL[type]),
            ids(),
            st.sampled_from([0, 0, 0, 4]),
        )
    )


def message_frames(of: Of) -> st.SearchStrategy[bytes]:
    types = [FrameType.REQUEST, FrameType.RESPONSE, FrameType.DATA, FrameType.INTERRUPT]
    return st.builds(
        lambda type, flags, number, message, payload: (
            pack(type, flags, number, encode(message), len(payload)) + payload
        ),
        st.sampled_from(types),
        st.sampled_from([0, 1, 1, 2, 3, 4, 5, 8, 9]),
        ids(),
        of(*TRAVELLING),
        payloads(),
    )


def raw_frames() -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda type, flags, number, meta, payload: (
            pack(type, flags, number, meta, len(payload)) + payload
        ),
        st.one_of(st.sampled_from(list(FrameType)), st.integers(0, 255)),
        st.integers(0, 15),
        ids(),
        st.binary(max_size=12),
        payloads(),
    )


def check(events: list[Event], session: Session) -> None:
    """Fail for anything that is not documented."""
    for event in events:
        if isinstance(event, ConnectionClosed):
            assert event is events[-1]
            assert session.closed
            error = event.error
            if error is not None:
                assert isinstance(error, RemoteProtocolError | ConnectionLost)
                assert isinstance(error, ConnectionLost) or error.code in DOCUMENTED, error
        elif isinstance(event, RequestReceived | ResponseReceived):
            assert len(event.payload) <= RECORD_PLAIN_MAX


def use(session: Session, events: list[Event], seed: int) -> None:
    """Do what a driver does with events, now this, now that; it may never be punished for it."""
    for number, event in enumerate(events):
        turn = (seed + number) % 5
        if isinstance(event, RequestReceived):
            if turn == 0:
                session.respond(event.stream_id, Error(ErrorCode.UNSUPPORTED))
            elif turn == 1:
                session.stop(event.stream_id, ErrorCode.CANCELLED)
            elif turn == 2:
                session.reset(event.stream_id, ErrorCode.CANCELLED)
            session.release(event.stream_id)
        elif isinstance(event, ResponseReceived) and turn < 3:
            session.consume(event.stream_id, len(event.payload))
        elif isinstance(event, DataReceived):
            if turn < 3:
                session.consume(event.stream_id, len(event.data))
            elif turn == 3:
                session.cancel(event.stream_id)


@settings(max_examples=250)
@given(data=st.data())
def test_session_takes_or_refuses_any_frames(
    of: Of, make_peer: Callable[[], Peer], data: st.DataObject
) -> None:
    peer = make_peer()
    session = peer.session
    frames = st.one_of(control_frames(of), message_frames(of), raw_frames())
    for record in data.draw(st.lists(st.lists(frames, min_size=1, max_size=4), max_size=6)):
        events = peer.send(*record)
        check(events, session)
        use(session, events, data.draw(st.integers(0, 4)))
        if session.closed:
            break
        if data.draw(st.booleans()):
            peer.drain()
        session.tick(0.0)
    assert len(session._streams.live) <= 2 * STREAMS_MAX
    check(session.receive_eof(0.0), session)


@settings(max_examples=200)
@given(data=st.data())
def test_session_takes_or_refuses_changed_frames(
    of: Of, make_peer: Callable[[], Peer], data: st.DataObject
) -> None:
    peer = make_peer()
    frames = st.one_of(control_frames(of), message_frames(of))
    record = bytearray(b"".join(data.draw(st.lists(frames, min_size=1, max_size=3))))
    for _ in range(data.draw(st.integers(1, 5))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    events = peer.send(bytes(record))
    check(events, peer.session)
    use(peer.session, events, 0)
    peer.drain()


@settings(max_examples=200)
@given(record=st.binary(min_size=1, max_size=80))
def test_session_takes_or_refuses_any_bytes_in_a_record(
    make_peer: Callable[[], Peer], record: bytes
) -> None:
    peer = make_peer()
    check(peer.send(record), peer.session)


@settings(max_examples=200)
@given(data=st.binary(max_size=400), is_dialler=st.booleans())
def test_session_takes_or_refuses_any_bytes_of_a_stranger(data: bytes, is_dialler: bool) -> None:
    dialler = DiallerHello(1, bytes(16), b"")
    config = SessionConfig(
        hello=dialler if is_dialler else HELLO,
        static_private=NODE_PRIVATE,
        random=lambda size: b"\x55" * size,
        remote_static=b"\x09" + bytes(31) if is_dialler else None,
    )
    session = Session(config, 0.0)
    session.next_record(0.0)
    events = session.receive_data(data, 0.0) + session.tick(5.0)
    assert [type(event) for event in events] == [ConnectionClosed]
    assert isinstance(events[0], ConnectionClosed)
    assert isinstance(events[0].error, AlpyneError)


def test_session_memory_stays_bounded_under_a_flood_of_legal_nonsense(
    make_peer: Callable[[], Peer],
) -> None:
    """Requests that are reset at once, late frames, pings, pads: for ever, in constant memory."""
    peer = make_peer()
    session = peer.session
    stream = 3
    pad = pack(FrameType.PAD, 0, 0, b"", 50_000) + bytes(50_000)
    reset = encode(control.Reset(ErrorCode.CANCELLED))

    def flood(rounds: int) -> None:
        nonlocal stream
        for _ in range(rounds):
            events = peer.send(
                pack(FrameType.REQUEST, 0, stream, encode(PUT), 1000) + bytes(1000),
                pack(FrameType.RESET, 0, stream, reset),
                pack(FrameType.RESET, 0, stream + 2, reset),
                pack(FrameType.PING, 0, 0, encode(control.Ping(1))),
                pad,
            )
            for event in events:
                assert not isinstance(event, ConnectionClosed), event
                if isinstance(event, RequestReceived):
                    session.respond(event.stream_id, ObjectInfo(1))
                    session.release(event.stream_id)
            peer.drain()
            stream += 4

    flood(200)
    tracemalloc.start()
    try:
        flood(200)
        before, _ = tracemalloc.get_traced_memory()
        flood(1000)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000
    assert peak < 2_000_000
