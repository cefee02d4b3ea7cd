"""The handshake of a session: what completes it, and that everything else ends in silence."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from alpyne_proto.codec import encode
from alpyne_proto.errors import ConnectionLost, ErrorCode, HandshakeFailed, LocalProtocolError
from alpyne_proto.events import (
    ConnectionClosed,
    Event,
    HandshakeCompleted,
    RequestReceived,
    StateChanged,
)
from alpyne_proto.frame import FrameType, pack
from alpyne_proto.limits import HANDSHAKE_RECORD_MAX
from alpyne_proto.messages.access import GetStatus
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.noise import HandshakeState
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import encode_handshake
from alpyne_proto.registry import State
from alpyne_proto.session import Session

MakeLink = Callable[..., Any]


def bits(data: bytes) -> list[int]:
    return list(range(8 * len(data)))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def ends_in_silence(session: Session, data: bytes) -> list[Event]:
    """Feed ``data``, wait the whole handshake's time, and return what was told."""
    events = session.receive_data(data, 0.0) + session.tick(5.0)
    assert [type(event) for event in events] == [ConnectionClosed]
    assert session.closed
    return events


def test_handshake_tells_both_sides_the_other_one(make_link: MakeLink) -> None:
    link = make_link()
    assert link.move(link.dialler) == []
    (at_dialler,) = link.move(link.acceptor)
    (at_acceptor,) = link.move(link.dialler)
    assert isinstance(at_dialler, HandshakeCompleted)
    assert isinstance(at_acceptor, HandshakeCompleted)
    assert at_dialler.hello == link.acceptor._config.hello == link.dialler.peer_hello
    assert at_acceptor.hello == link.dialler._config.hello == link.acceptor.peer_hello
    assert at_dialler.remote_static == link.dialler._config.remote_static
    assert link.acceptor.remote_static == at_acceptor.remote_static
    assert link.acceptor.handshake_hash == link.dialler.handshake_hash
    assert link.acceptor.state is link.dialler.state is State.HANDSHAKE
    assert link.settle() == ([], [])


def test_dialler_learns_its_state_and_role_when_the_acceptor_promotes_it(
    make_link: MakeLink,
) -> None:
    link = make_link()
    link.handshake()
    link.acceptor.promote(State.OPEN, AccountRole.ADMIN)
    assert link.settle() == ([StateChanged(State.OPEN, AccountRole.ADMIN)], [])
    assert link.dialler.state is link.acceptor.state is State.OPEN


def test_hash_and_keys_stay_known_when_the_connection_is_open(link: Any) -> None:
    assert link.dialler.handshake_hash == link.acceptor.handshake_hash
    assert len(link.acceptor.remote_static) == 32


def test_nothing_is_known_of_the_peer_before_the_handshake(make_link: MakeLink) -> None:
    session = make_link().acceptor
    assert session.peer_hello is None
    with pytest.raises(LocalProtocolError):
        _ = session.remote_static
    with pytest.raises(LocalProtocolError):
        session.open_stream(GetStatus())


# --- what is changed on the way ---------------------------------------------------------------


def test_acceptor_closes_without_content_when_any_bit_of_preface_or_message_1_is_flipped(
    make_link: MakeLink,
) -> None:
    first = make_link().dialler.next_record(0.0)
    own_preface = Preface().encode()
    for bit in bits(first):
        session = make_link().acceptor
        ends_in_silence(session, flipped(first, bit))
        # Version, suite, pattern and flags are answered with our own, for the dialler's user.
        expected = own_preface if 8 * 8 <= bit < 12 * 8 else None
        assert session.next_record(5.0) == expected, f"bit {bit}"
        assert session.next_record(5.0) is None


def test_dialler_closes_without_content_when_any_bit_of_message_2_is_flipped(
    make_link: MakeLink,
) -> None:
    link = make_link()
    link.move(link.dialler)
    (second,) = link.take(link.acceptor)
    for bit in bits(second):
        session = make_link().dialler
        session.next_record(0.0)
        ends_in_silence(session, flipped(second, bit))
        assert session.next_record(5.0) is None, f"bit {bit}"


def test_acceptor_closes_without_content_when_any_bit_of_message_3_is_flipped(
    make_link: MakeLink,
) -> None:
    link = make_link()
    (first,) = link.take(link.dialler)
    link.give(link.acceptor, first)
    link.move(link.acceptor)
    (third,) = link.take(link.dialler)
    for bit in bits(third):
        session = make_link().acceptor
        session.receive_data(first, 0.0)
        session.next_record(0.0)
        ends_in_silence(session, flipped(third, bit))
        assert session.next_record(5.0) is None, f"bit {bit}"


@pytest.mark.parametrize("message", [1, 2, 3])
def test_messages_that_stop_anywhere_end_in_handshake_failed(
    make_link: MakeLink, message: int
) -> None:
    link = make_link()
    receiver = link.dialler if message == 2 else link.acceptor
    for _ in range(message - 1):
        link.move(link.dialler if _ % 2 == 0 else link.acceptor)
    (data,) = link.take(link.other(receiver))
    cut = 7 * len(data) // 8
    assert link.give(receiver, data[:cut]) == []
    (event,) = receiver.receive_eof(1.0)
    assert isinstance(event.error, HandshakeFailed)
    assert receiver.next_record(1.0) is None


def test_replayed_message_1_is_not_taken_for_message_3(make_link: MakeLink) -> None:
    link = make_link()
    (first,) = link.take(link.dialler)
    link.give(link.acceptor, first)
    (event,) = link.give(link.acceptor, first[12:])
    assert isinstance(event.error, HandshakeFailed)
    assert link.take(link.acceptor) == []


def test_own_message_sent_back_is_not_taken(make_link: MakeLink) -> None:
    link = make_link()
    (first,) = link.take(link.dialler)
    (event,) = link.give(link.dialler, first[12:])
    assert isinstance(event.error, HandshakeFailed)


def test_dialler_is_refused_in_silence_when_it_expects_another_key(make_link: MakeLink) -> None:
    link = make_link(dialler={"remote_static": b"\x09" + bytes(31)})
    (event,) = link.move(link.dialler)
    assert isinstance(event.error, HandshakeFailed)
    assert link.take(link.acceptor) == []
    (event,) = link.dialler.receive_eof(0.0)
    assert isinstance(event.error, HandshakeFailed)
    assert "key" in str(event.error)


# --- what the dialler says of itself --------------------------------------------------------


def speak(make_link: MakeLink, *, payload: bytes = b"", hello: bytes = b"") -> list[Event]:
    """Do a handshake by hand, with any payloads; return what the acceptor tells."""
    link = make_link()
    config = link.dialler._config
    noise = HandshakeState(
        NOISE_NAME,
        True,
        Preface().prologue,
        config.static_private,
        b"\x33" * 32,
        config.remote_static,
    )
    first = Preface().encode() + encode_handshake(noise.write_message(payload))
    events: list[Event] = link.give(link.acceptor, first)
    if events:
        return events
    noise.read_message(link.take(link.acceptor)[0][4:])
    events = link.give(link.acceptor, encode_handshake(noise.write_message(hello)))
    assert link.take(link.acceptor) == []
    return events


def test_acceptor_takes_the_handshake_made_by_hand(make_link: MakeLink) -> None:
    hello = make_link().dialler._config.hello
    (event,) = speak(make_link, hello=encode(hello))
    assert event.hello == hello


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"\x80",
        b"\xc1",
        "no roles",
        "unknown odd key",
        "trailing",
        "the acceptor's",
    ],
)
def test_acceptor_closes_in_silence_when_the_hello_is_wrong(
    make_link: MakeLink, hello: bytes | str
) -> None:
    link = make_link()
    good = link.dialler._config.hello
    made = {
        "no roles": encode(replace(good, roles=0)),
        "unknown odd key": bytes((encode(good)[0] + 1,)) + encode(good)[1:] + b"\x63\x00",
        "trailing": encode(good) + b"\xc0",
        "the acceptor's": encode(link.acceptor._config.hello),
    }
    events = speak(make_link, hello=hello if isinstance(hello, bytes) else made[hello])
    assert [type(event) for event in events] == [ConnectionClosed]
    assert isinstance(events[0].error, HandshakeFailed)


def test_acceptor_closes_in_silence_when_message_1_has_a_payload(make_link: MakeLink) -> None:
    hello = encode(make_link().dialler._config.hello)
    (event,) = speak(make_link, payload=b"early", hello=hello)
    assert isinstance(event.error, HandshakeFailed)


def test_acceptor_closes_when_a_record_of_the_handshake_is_too_long(make_link: MakeLink) -> None:
    session = make_link().acceptor
    size = HANDSHAKE_RECORD_MAX + 1
    data = Preface().encode() + b"\x01" + size.to_bytes(3)
    (event,) = session.receive_data(data, 0.0)
    assert isinstance(event.error, HandshakeFailed)


# --- refusals, time, configuration ----------------------------------------------------------


def test_busy_acceptor_says_so_and_the_dialler_can_tell(make_link: MakeLink) -> None:
    link = make_link(acceptor={"busy": True})
    (event,) = link.move(link.dialler)
    assert isinstance(event.error, HandshakeFailed)
    (event,) = link.move(link.acceptor)
    assert isinstance(event.error, HandshakeFailed)
    assert "busy" in str(event.error)
    assert link.take(link.dialler) == []


def test_dialler_reads_a_refusal_that_comes_in_pieces(make_link: MakeLink) -> None:
    session = make_link().dialler
    refusal = Preface(version=9).encode()
    assert session.receive_data(refusal[:11], 0.0) == []
    (event,) = session.receive_data(refusal[11:], 0.0)
    assert isinstance(event.error, HandshakeFailed)
    assert "version" in str(event.error)


def test_session_that_is_closed_before_the_handshake_says_nothing(make_link: MakeLink) -> None:
    session = make_link().dialler
    session.close(ErrorCode.CANCELLED, "never mind")
    assert session.next_record(0.0) is None
    (event,) = session.events()
    assert isinstance(event, ConnectionClosed)


def test_promote_after_the_end_does_nothing(make_link: MakeLink) -> None:
    link = make_link()
    link.handshake()
    link.acceptor.receive_eof(0.0)
    link.acceptor.promote(State.OPEN)
    assert link.acceptor.events() == []


def test_busy_acceptor_says_nothing_to_somebody_else(make_link: MakeLink) -> None:
    session = make_link(acceptor={"busy": True}).acceptor
    (event,) = session.receive_data(b"GET / HTTP/1.1\r\n", 0.0)
    assert isinstance(event.error, HandshakeFailed)
    assert session.next_record(0.0) is None


def test_acceptor_does_not_wait_for_the_rest_of_what_is_no_preface(make_link: MakeLink) -> None:
    session = make_link().acceptor
    assert session.receive_data(b"ALP", 0.0) == []
    (event,) = session.receive_data(b"X", 0.0)
    assert isinstance(event.error, HandshakeFailed)


@pytest.mark.parametrize(
    ("steps", "deadline"), [(0, 2.0), (1, 5.0), (2, 5.0), (3, 5.0)], ids=["none", "1", "2", "3"]
)
def test_acceptor_gives_a_slow_handshake_up(
    make_link: MakeLink, steps: int, deadline: float
) -> None:
    link = make_link()
    for step in range(steps):
        link.move(link.dialler if step % 2 == 0 else link.acceptor)
    link.take(link.acceptor)
    session = link.acceptor
    session.events()
    assert session.next_deadline() == deadline
    assert session.tick(deadline - 0.001) == []
    (event,) = session.tick(deadline)
    assert isinstance(event.error, HandshakeFailed)
    assert session.next_record(deadline) is None
    assert session.next_deadline() is None


def test_dialler_gives_an_acceptor_up_that_does_not_settle(make_link: MakeLink) -> None:
    link = make_link()
    link.handshake()
    (event,) = link.dialler.tick(5.0)
    assert isinstance(event.error, HandshakeFailed)


def test_requests_that_come_before_promote_are_held(make_raw: Callable[..., Any]) -> None:
    raw = make_raw(state=None)
    early = pack(FrameType.REQUEST, 1, 1, encode(GetStatus()))
    assert raw.send(early) == []
    raw.session.promote(State.OPEN)
    assert raw.session.events() == [RequestReceived(1, GetStatus(), b"", True)]


def test_events_of_what_was_held_are_told_by_the_next_tick(make_raw: Callable[..., Any]) -> None:
    raw = make_raw(state=None)
    raw.send(pack(FrameType.REQUEST, 1, 1, encode(GetStatus())))
    raw.session.promote(State.OPEN)
    assert raw.session.next_deadline() == 0.0
    assert raw.session.tick(0.0) == [RequestReceived(1, GetStatus(), b"", True)]


def test_more_than_a_record_before_promote_is_refused(make_raw: Callable[..., Any]) -> None:
    raw = make_raw(state=None)
    (event,) = raw.session.receive_data(bytes(70_000), 0.0)
    assert event.error.code is ErrorCode.FRAME_ERROR


def test_acceptor_refuses_a_device_with_a_reason_after_the_handshake(make_link: MakeLink) -> None:
    link = make_link()
    link.handshake()
    link.acceptor.close(ErrorCode.REVOKED, "the device was revoked")
    at_dialler, _ = link.settle()
    (closed,) = at_dialler
    assert isinstance(closed.error, ConnectionLost)
    assert closed.error.code is ErrorCode.REVOKED
    assert "the device was revoked" in str(closed.error)


@pytest.mark.parametrize("changes", [{"remote_static": None}, {"hello": {"roles": 0}}])
def test_session_refuses_a_dialler_without_key_or_role(
    make_link: MakeLink, changes: dict[str, Any]
) -> None:
    with pytest.raises(LocalProtocolError):
        make_link(dialler=changes)


def test_only_the_acceptor_promotes_and_only_upwards(make_link: MakeLink) -> None:
    link = make_link()
    link.handshake()
    with pytest.raises(LocalProtocolError):
        link.dialler.promote(State.OPEN)
    with pytest.raises(LocalProtocolError, match="settling"):
        link.acceptor.promote(State.BEARER)
    with pytest.raises(LocalProtocolError):
        link.acceptor.promote(State.WORKER)
    link.acceptor.promote(State.OPEN)
    with pytest.raises(LocalProtocolError):
        link.acceptor.promote(State.UNKNOWN)
