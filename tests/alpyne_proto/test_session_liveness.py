"""Silence: a ping after 5 s, the end after 15 s; all by the time that the caller names."""

from collections.abc import Callable
from typing import Any

from alpyne_proto.codec import decode_as
from alpyne_proto.errors import ConnectionLost, ErrorCode
from alpyne_proto.events import ConnectionClosed
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.messages import control
from alpyne_proto.messages.data import StatObject

Make = Callable[..., Any]


def test_silent_peer_is_pinged_after_five_seconds_and_answers(link: Any) -> None:
    dialler = link.dialler
    assert dialler.next_deadline() == 5.0
    assert dialler.tick(4.99) == []
    assert not dialler.has_output
    link.now = 5.0
    assert dialler.tick(link.now) == []
    assert link.settle() == ([], [])
    assert dialler.next_deadline() == 10.0


def test_silent_peer_is_pinged_every_five_seconds_and_given_up_after_fifteen(raw: Any) -> None:
    session = raw.session
    for now, token in ((5.0, 1), (10.0, 2)):
        assert session.tick(now) == []
        (ping,) = raw.receive()
        assert ping.type == FrameType.PING
        assert decode_as(ping.meta, control.Ping, lenient=False).token == token
        assert session.tick(now + 1) == []
        assert raw.receive() == []
    assert session.next_deadline() == 15.0
    assert session.tick(14.999) == []
    (closed,) = session.tick(15.0)
    assert isinstance(closed.error, ConnectionLost)
    assert closed.error.code is ErrorCode.IDLE_TIMEOUT
    (last,) = raw.receive()
    assert decode_as(last.meta, control.Close, lenient=False).code is ErrorCode.IDLE_TIMEOUT
    assert session.next_deadline() is None


def test_any_record_is_a_sign_of_life(raw: Any, frame: Make) -> None:
    for second in range(4, 60, 4):
        raw.now = float(second)
        assert raw.session.tick(raw.now) == []
        assert raw.send(frame(FrameType.PAD)) == []
        assert raw.session.next_deadline() == second + 5.0
    assert raw.receive() == []


def test_bytes_that_are_no_whole_record_are_no_sign_of_life(raw: Any, frame: Make) -> None:
    record = bytes(raw._writer.seal((frame(FrameType.PAD),)))
    for second, byte in enumerate(record[:15]):
        assert raw.session.receive_data(bytes((byte,)), float(second)) == []
        raw.session.tick(float(second))
    assert isinstance(raw.session.tick(15.0)[0], ConnectionClosed)


def test_ping_is_answered_with_its_token(raw: Any, frame: Make) -> None:
    raw.send(frame(FrameType.PING, message=control.Ping(2**64 - 1)))
    (pong,) = raw.receive()
    assert (pong.type, pong.flags) == (FrameType.PING, Flags.ACK)
    assert decode_as(pong.meta, control.Ping, lenient=False).token == 2**64 - 1


def test_answer_to_a_ping_is_taken_once(raw: Any, frame: Make, closing: Make) -> None:
    raw.session.tick(5.0)
    raw.now = 5.0
    pong = frame(FrameType.PING, message=control.Ping(1), flags=Flags.ACK)
    assert raw.send(pong) == []
    assert closing(raw.send(pong)).code is ErrorCode.FRAME_ERROR


def test_peer_that_makes_us_answer_and_does_not_read_is_closed(
    raw: Any, frame: Make, closing: Make
) -> None:
    ping = frame(FrameType.PING, message=control.Ping(1))
    assert raw.send(*[ping] * 4096) == []
    error = closing(raw.send(ping))
    assert error.code is ErrorCode.TOO_BUSY


def test_deadline_is_now_while_events_wait_to_be_fetched(link: Any) -> None:
    link.dialler.receive_data(b"", 3.0)
    link.dialler.close()
    assert link.dialler.next_deadline() == 3.0
    assert link.dialler.events() == [ConnectionClosed(None)]
    assert link.dialler.next_deadline() is None


def test_work_goes_on_over_many_idle_periods(link: Any) -> None:
    for _ in range(20):
        link.now = min(link.dialler.next_deadline(), link.acceptor.next_deadline())
        for session in (link.dialler, link.acceptor):
            assert session.tick(link.now) == []
        assert link.settle() == ([], [])
    link.dialler.open_stream(StatObject(b"c" * 16, "path"))
    assert len(link.settle()[1]) == 1
