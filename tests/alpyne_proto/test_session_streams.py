"""Streams: requests, answers, half-closed sides, resets, stops, places, and what comes late."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from alpyne_proto.codec import decode_as, encode
from alpyne_proto.errors import ConnectionLost, ErrorCode, LocalProtocolError
from alpyne_proto.events import (
    DataReceived,
    GoAwayReceived,
    RequestAcked,
    RequestReceived,
    ResponseReceived,
    StopReceived,
    StreamReset,
)
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.limits import STREAM_ID_MAX
from alpyne_proto.messages import control
from alpyne_proto.messages.access import GetStatus, NodeStatus
from alpyne_proto.messages.compute import CancelJobs, PushEvents, SubmitJobs
from alpyne_proto.messages.control import BodyDigest, Done, Error, RowsFollow
from alpyne_proto.messages.data import GetObject, ObjectInfo, PutObject, StatObject
from alpyne_proto.messages.hello import NodeKind

PUT = PutObject(b"c" * 16, "path", 1, b"w" * 16, 1 << 20)
GET = GetObject(b"c" * 16, "path")
STAT = StatObject(b"c" * 16, "path")
DIGEST = BodyDigest(b"h" * 32)
CANCELLED = ErrorCode.CANCELLED
Make = Callable[..., Any]
F = FrameType


def live(session: Any) -> list[int]:
    return list(session._streams.live)


# --- requests and answers ---------------------------------------------------------------------


def test_request_and_answer_travel_on_one_stream(link: Any) -> None:
    stream = link.dialler.open_stream(STAT)
    assert link.settle() == ([], [RequestReceived(stream, STAT, b"", True)])
    link.acceptor.respond(stream, ObjectInfo(3))
    link.acceptor.release(stream)
    assert link.settle() == ([ResponseReceived(stream, ObjectInfo(3), b"", True)], [])
    assert live(link.dialler) == live(link.acceptor) == []


def test_ids_are_odd_and_even_and_rise(link: Any) -> None:
    assert [link.dialler.open_stream(STAT) for _ in range(3)] == [1, 3, 5]
    assert [link.acceptor.open_stream(STAT) for _ in range(3)] == [2, 4, 6]


def test_bodies_go_both_ways_and_end_with_their_trailers(link: Any) -> None:
    stream = link.dialler.open_stream(PUT, b"first ", end=False)
    link.dialler.send_data(stream, b"second ")
    link.dialler.send_data(stream, b"last", end=True, trailer=DIGEST)
    _, told = link.settle()
    assert told == [
        RequestReceived(stream, PUT, b"first second ", False),
        DataReceived(stream, b"last", True, DIGEST),
    ] or told == [
        RequestReceived(stream, PUT, b"first second last", False),
        DataReceived(stream, b"", True, DIGEST),
    ]
    link.acceptor.respond(stream, ObjectInfo(1), b"answer", end=False)
    link.acceptor.send_data(stream, b"", end=True)
    link.acceptor.release(stream)
    told, _ = link.settle()
    assert told == [ResponseReceived(stream, ObjectInfo(1), b"answer", True)]


def test_answer_may_come_before_the_body_has_ended(link: Any) -> None:
    stream = link.dialler.open_stream(PUT, end=False)
    link.settle()
    link.acceptor.respond(stream, Error(ErrorCode.QUOTA_EXCEEDED))
    told, _ = link.settle()
    assert told == [ResponseReceived(stream, Error(ErrorCode.QUOTA_EXCEEDED), b"", True)]
    link.dialler.send_data(stream, b"still", end=True)
    _, told = link.settle()
    assert told == [DataReceived(stream, b"still", True, None)]


def test_push_is_a_request_of_the_acceptor_whose_body_does_not_end(link: Any) -> None:
    stream = link.acceptor.open_stream(PushEvents(1), end=False, urgency=1)
    link.settle()
    link.acceptor.send_data(stream, b"row")
    told, _ = link.settle()
    assert told == [DataReceived(stream, b"row", False, None)]


def test_request_is_acknowledged_on_dispatch_when_it_asks_for_it(link: Any) -> None:
    stream = link.dialler.open_stream(STAT, want_ack=True)
    told, _ = link.settle()
    assert told == [RequestAcked(stream)]


def test_body_may_be_any_buffer(link: Any) -> None:
    words = memoryview(bytearray(b"12345678")).cast("I")
    stream = link.dialler.open_stream(PUT, words, end=False)
    link.dialler.send_data(stream, bytearray(b"abc"), end=True)
    _, (request,) = link.settle()
    assert (request.payload, request.end) == (b"12345678abc", True)


@pytest.mark.parametrize(
    ("message", "payload", "end"),
    [(STAT, b"body", True), (STAT, b"", False), (Done(), b"", True), (PushEvents(1), b"", True)],
)
def test_session_refuses_to_open_what_is_not_legal(
    link: Any, message: Any, payload: bytes, end: bool
) -> None:
    with pytest.raises(LocalProtocolError):
        link.dialler.open_stream(message, payload, end=end)
    assert link.dialler.open_stream(STAT) == 1


def test_session_refuses_answers_that_do_not_answer(link: Any) -> None:
    stream = link.dialler.open_stream(STAT)
    link.settle()
    for message, payload in ((Done(), b""), (NodeStatus(NodeKind.DATA), b""), (GetStatus(), b"")):
        with pytest.raises(LocalProtocolError):
            link.acceptor.respond(stream, message, payload)
    with pytest.raises(LocalProtocolError, match="no body"):
        link.acceptor.respond(stream, Error(ErrorCode.NOT_FOUND), b"body")
    link.acceptor.respond(stream, ObjectInfo(1))
    with pytest.raises(LocalProtocolError, match="cannot answer"):
        link.acceptor.respond(stream, ObjectInfo(1))


def test_session_refuses_data_before_the_answer_and_behind_the_end(link: Any) -> None:
    stream = link.dialler.open_stream(GET)
    link.settle()
    with pytest.raises(LocalProtocolError):
        link.acceptor.send_data(stream, b"early")
    with pytest.raises(LocalProtocolError):
        link.dialler.send_data(stream, b"late")
    with pytest.raises(LocalProtocolError, match="never"):
        link.dialler.send_data(99, b"x")
    with pytest.raises(LocalProtocolError, match="end only"):
        link.acceptor.respond(stream, ObjectInfo(1), end=False)
        link.acceptor.send_data(stream, b"x", trailer=DIGEST)
    with pytest.raises(LocalProtocolError):
        link.acceptor.send_data(stream, b"x", end=True, trailer=Done())


@pytest.mark.parametrize("urgency", [0, 8])
def test_session_refuses_an_urgency_that_is_not_one(link: Any, urgency: int) -> None:
    with pytest.raises(LocalProtocolError, match="urgency"):
        link.dialler.open_stream(STAT, urgency=urgency)


def test_answer_may_be_made_less_urgent(link: Any) -> None:
    bulk, quick = link.dialler.open_stream(GET), link.dialler.open_stream(GET)
    link.settle()
    link.acceptor.respond(bulk, ObjectInfo(1), random.randbytes(500_000), urgency=7)
    link.acceptor.respond(quick, ObjectInfo(1), random.randbytes(500_000), urgency=2)
    records = link.take(link.acceptor)
    events = link.give(link.dialler, *records[: len(records) // 2])
    got = {bulk: 0, quick: 0}
    for event in events:
        piece = event.payload if isinstance(event, ResponseReceived) else event.data
        got[event.stream_id] += len(piece)
    assert got[quick] >= 3 * got[bulk]


def test_nothing_can_be_asked_before_the_state_is_known(make_link: Make) -> None:
    link = make_link()
    link.handshake()
    for session in (link.dialler, link.acceptor):
        with pytest.raises(LocalProtocolError, match="not open"):
            session.open_stream(STAT)
        with pytest.raises(LocalProtocolError, match="not open"):
            session.interrupt(CancelJobs((b"j" * 16,)))
        with pytest.raises(LocalProtocolError, match="not open"):
            session.send_data(1, b"x")
        assert session.open_room == 0
        session.go_away()
        assert not session.has_output


def test_session_says_when_its_ids_are_used_up(link: Any) -> None:
    link.dialler._streams.next_own = STREAM_ID_MAX
    assert link.dialler.open_stream(STAT) == STREAM_ID_MAX
    with pytest.raises(LocalProtocolError, match="new connection"):
        link.dialler.open_stream(STAT)


# --- reset and stop ---------------------------------------------------------------------------


def test_reset_ends_one_side_and_the_other_goes_on(link: Any) -> None:
    stream = link.dialler.open_stream(PUT, b"some", end=False)
    link.settle()
    link.dialler.reset(stream, CANCELLED, "changed my mind")
    assert link.settle() == ([], [StreamReset(stream, CANCELLED, "changed my mind")])
    link.acceptor.respond(stream, ObjectInfo(1))
    told, _ = link.settle()
    assert told == [ResponseReceived(stream, ObjectInfo(1), b"", True)]


def test_reset_drops_what_was_not_sent(link: Any) -> None:
    stream = link.dialler.open_stream(PUT, end=False)
    link.settle()
    link.dialler.send_data(stream, random.randbytes(200_000))
    link.dialler.reset(stream, CANCELLED)
    _, told = link.settle()
    assert told == [StreamReset(stream, CANCELLED, "")]
    assert link.dialler._bodies.queued == 0


def test_reset_of_a_request_that_was_not_sent_is_never_told(link: Any) -> None:
    first, second = link.dialler.open_stream(PUT, b"x", end=False), link.dialler.open_stream(STAT)
    link.dialler.cancel(first)
    _, told = link.settle()
    assert told == [RequestReceived(second, STAT, b"", True)]
    assert live(link.dialler) == [second]
    assert live(link.acceptor) == [second]


def test_stop_is_answered_with_reset_and_the_rest_is_dropped(link: Any) -> None:
    stream = link.dialler.open_stream(GET)
    link.settle()
    link.acceptor.respond(stream, ObjectInfo(1), random.randbytes(300_000))
    first = link.acceptor.next_record(0.0)
    link.give(link.dialler, first)
    link.dialler.stop(stream, CANCELLED, "enough")
    assert link.move(link.dialler) == [StopReceived(stream, CANCELLED, "enough")]
    assert link.settle() == ([], [])
    link.acceptor.release(stream)
    assert live(link.dialler) == live(link.acceptor) == []


def test_late_answers_to_what_was_stopped_do_nothing(link: Any) -> None:
    stream = link.dialler.open_stream(GET)
    link.settle()
    link.dialler.stop(stream, CANCELLED)
    link.settle()
    link.acceptor.respond(stream, ObjectInfo(1), b"x", end=False)
    link.acceptor.send_data(stream, b"y", end=True)
    assert link.acceptor.send_room(stream) == 0
    assert link.settle() == ([], [])


def test_stop_that_crosses_the_end_is_not_answered(link: Any) -> None:
    stream = link.dialler.open_stream(GET)
    link.settle()
    link.acceptor.respond(stream, ObjectInfo(1), b"all")
    link.acceptor.release(stream)
    answer = link.take(link.acceptor)
    link.dialler.stop(stream, CANCELLED)
    assert link.move(link.dialler) == []
    assert link.give(link.dialler, *answer) == []
    assert link.settle() == ([], [])
    assert live(link.dialler) == live(link.acceptor) == []


def test_stop_that_crosses_the_end_of_a_stream_at_work_is_not_told(raw: Any, frame: Make) -> None:
    raw.send(frame(F.REQUEST, 1, flags=Flags.END, meta=encode(GET)))
    raw.session.respond(1, ObjectInfo(1), b"all")
    raw.receive()
    assert raw.send(frame(F.STOP, 1, message=control.Stop(CANCELLED))) == []
    assert raw.receive() == []


def test_cancel_ends_both_sides(link: Any) -> None:
    stream = link.dialler.open_stream(PUT, b"x", end=False)
    link.settle()
    link.dialler.cancel(stream, CANCELLED, "cancelled")
    _, told = link.settle()
    assert told == [
        StreamReset(stream, CANCELLED, "cancelled"),
        StopReceived(stream, CANCELLED, "cancelled"),
    ]
    assert live(link.dialler) == []
    link.acceptor.release(stream)
    assert live(link.acceptor) == []


def test_stop_of_a_request_that_was_not_sent_is_never_told(link: Any) -> None:
    stream = link.dialler.open_stream(GET)
    link.dialler.stop(stream, CANCELLED)
    assert link.settle() == ([], [])
    assert live(link.dialler) == live(link.acceptor) == []
    assert link.dialler.open_stream(GET) == 3
    assert len(link.settle()[1]) == 1


def test_answer_that_crosses_a_stop_is_dropped_and_its_credit_given_back(link: Any) -> None:
    stream = link.dialler.open_stream(GET)
    link.settle()
    link.acceptor.respond(stream, ObjectInfo(1), b"x" * 500, end=False)
    crossing = link.take(link.acceptor)
    link.dialler.stop(stream, CANCELLED)
    assert link.give(link.dialler, *crossing) == []
    assert link.dialler._outbox.receive_credit.outstanding == 0
    assert link.settle() == ([], [StopReceived(stream, CANCELLED, "")])


@pytest.mark.parametrize(
    "type", [F.RESET, F.STOP, F.MAX_STREAM_DATA, F.DATA, F.RESPONSE, F.REQ_ACK]
)
def test_peer_cannot_name_a_stream_whose_request_it_has_not_seen(
    raw: Any, frame: Make, closing: Make, type: FrameType
) -> None:
    raw.session.open_stream(STAT, want_ack=True)
    metas = {
        F.RESET: control.Reset(CANCELLED),
        F.STOP: control.Stop(CANCELLED),
        F.MAX_STREAM_DATA: control.MaxStreamData(1),
        F.RESPONSE: ObjectInfo(1),
    }
    payload = bytes(8) + b"x" if type is F.DATA else b""
    flags = Flags.END if type is F.RESPONSE else 0
    meta = encode(metas[type]) if type in metas else b""
    assert closing(raw.send(frame(type, 2, payload, flags=flags, meta=meta))).code is (
        ErrorCode.FRAME_ERROR
    )


def test_ends_of_what_has_ended_do_nothing(link: Any) -> None:
    stream = link.dialler.open_stream(STAT)
    link.settle()
    link.acceptor.respond(stream, ObjectInfo(1))
    link.acceptor.release(stream)
    link.settle()
    for session in (link.dialler, link.acceptor):
        session.reset(stream, CANCELLED)
        session.stop(stream, CANCELLED)
        session.release(stream)
        session.consume(stream, 5)
        assert session.send_room(stream) == 0
    assert link.settle() == ([], [])


# --- places -----------------------------------------------------------------------------------


def test_release_resets_an_answer_that_was_not_finished(link: Any) -> None:
    first, second = link.dialler.open_stream(GET), link.dialler.open_stream(GET)
    link.settle()
    link.acceptor.respond(second, ObjectInfo(1), b"part", end=False)
    link.acceptor.release(first)
    link.acceptor.release(second)
    told, _ = link.settle()
    assert [type(event) for event in told] == [StreamReset, StreamReset]
    assert {event.code for event in told} == {ErrorCode.INTERNAL}


def test_release_stops_a_body_that_was_not_read(link: Any) -> None:
    stream = link.dialler.open_stream(PUT, b"x", end=False)
    link.settle()
    link.acceptor.respond(stream, Error(ErrorCode.NOT_FOUND))
    link.acceptor.release(stream)
    told, _ = link.settle()
    assert StopReceived(stream, ErrorCode.NO_ERROR, "the rest is not needed") in told
    assert live(link.dialler) == live(link.acceptor) == []


def test_reset_stream_keeps_its_place_until_its_handler_has_ended(make_link: Make) -> None:
    link = make_link(acceptor={"hello": {"max_streams": 2}})
    link.open()
    dialler, acceptor = link.dialler, link.acceptor
    for stream in (1, 3):
        assert dialler.open_stream(STAT) == stream
        link.settle()
        dialler.cancel(stream)
        link.settle()
    assert dialler.open_room == 0
    assert dialler.open_stream(STAT) == 5
    assert link.settle() == ([], [])  # it waits: the handlers of 1 and 3 are at work
    acceptor.release(1)
    assert link.settle() == ([], [RequestReceived(5, STAT, b"", True)])
    acceptor.release(3)
    link.settle()
    assert dialler.open_room == 1


def test_requests_beyond_the_places_wait_and_keep_their_order(make_link: Make) -> None:
    link = make_link(acceptor={"hello": {"max_streams": 4}})
    link.open()
    for _ in range(20):
        link.dialler.open_stream(STAT)
    seen: list[int] = []
    while len(seen) < 20:
        _, told = link.settle()
        assert 0 < len(told) <= 4
        for event in told:
            seen.append(event.stream_id)
            link.acceptor.respond(event.stream_id, ObjectInfo(1))
            link.acceptor.release(event.stream_id)
    assert seen == list(range(1, 41, 2))


def test_peer_that_opens_more_streams_than_it_may_is_refused(
    make_raw: Make, frame: Make, closing: Make
) -> None:
    raw = make_raw(hello={"max_streams": 2})
    stat = encode(STAT)
    requests = [frame(F.REQUEST, i, flags=Flags.END, meta=stat) for i in (1, 3, 5)]
    *before, _ = events = raw.send(*requests)
    assert len(before) == 2
    assert closing(events).code is ErrorCode.FLOW_CONTROL_ERROR


def test_peer_that_resets_at_once_does_not_get_its_place_back(
    make_raw: Make, frame: Make, closing: Make
) -> None:
    raw = make_raw(hello={"max_streams": 8})
    stat, reset = encode(STAT), control.Reset(CANCELLED)
    frames = []
    for i in range(9):
        stream = 2 * i + 1
        frames.append(frame(F.REQUEST, stream, meta=encode(PUT) if i < 8 else stat))
        frames.append(frame(F.RESET, stream, message=reset))
        frames.append(frame(F.STOP, stream, message=control.Stop(CANCELLED)))
    assert closing(raw.send(*frames)).code is ErrorCode.FLOW_CONTROL_ERROR


def test_more_urgent_request_goes_first_without_disturbing_the_ids(link: Any) -> None:
    slow = link.dialler.open_stream(PUT, bytes(40_000), end=False, urgency=7)
    fast = link.dialler.open_stream(SubmitJobs(1), bytes(100), urgency=1)
    _, told = link.settle()
    assert [event.stream_id for event in told] == [slow, fast, slow]
    assert (told[0].payload, told[1].end) == (b"", True)
    assert len(told[2].data) == 40_000


# --- late frames, going away, the end -----------------------------------------------------------


def test_control_frames_that_cross_the_end_are_ignored_but_not_for_ever(
    raw: Any, frame: Make, closing: Make
) -> None:
    raw.send(frame(F.REQUEST, 1, flags=Flags.END, meta=encode(STAT)))
    raw.session.respond(1, ObjectInfo(1))
    raw.session.release(1)
    raw.receive()
    late = [
        frame(F.STOP, 1, message=control.Stop(CANCELLED)),
        frame(F.MAX_STREAM_DATA, 1, message=control.MaxStreamData(9)),
    ]
    assert raw.send(*late) == []
    assert closing(raw.send(*late * 20)).code is ErrorCode.FRAME_ERROR


def test_body_of_a_stream_that_has_ended_is_refused(raw: Any, frame: Make, closing: Make) -> None:
    raw.send(frame(F.REQUEST, 1, flags=Flags.END, meta=encode(STAT)))
    raw.session.respond(1, ObjectInfo(1))
    raw.session.release(1)
    raw.receive()
    events = raw.send(frame(F.DATA, 1, bytes(8) + b"x"))
    assert closing(events).code is ErrorCode.FRAME_ERROR


def test_memory_of_ended_streams_is_given_back(link: Any) -> None:
    for _ in range(2000):
        stream = link.dialler.open_stream(STAT)
        for event in link.move(link.dialler):
            link.acceptor.respond(event.stream_id, ObjectInfo(1))
            link.acceptor.release(event.stream_id)
        link.move(link.acceptor)
    assert stream == 3999
    assert live(link.dialler) == live(link.acceptor) == []


def test_go_away_serves_what_came_and_refuses_what_comes(link: Any) -> None:
    old = link.dialler.open_stream(PUT, b"x", end=False)
    link.settle()
    link.acceptor.go_away(text="restarting")
    new = link.dialler.open_stream(PUT, b"y", end=False)
    crossing = link.take(link.dialler)
    told = link.move(link.acceptor)
    assert told == [
        GoAwayReceived(old, ErrorCode.SHUTTING_DOWN, "restarting"),
        StreamReset(new, ErrorCode.SHUTTING_DOWN, "restarting"),
    ]
    assert link.give(link.acceptor, *crossing) == []
    link.dialler.send_data(new, b"into the void")
    link.dialler.send_data(old, b"z", end=True)
    told, at_acceptor = link.settle()
    assert told == []
    assert at_acceptor == [DataReceived(old, b"z", True, None)]
    with pytest.raises(LocalProtocolError, match="goes away"):
        link.dialler.open_stream(STAT)
    link.acceptor.respond(old, ObjectInfo(1))
    link.acceptor.release(old)
    told, _ = link.settle()
    assert told == [ResponseReceived(old, ObjectInfo(1), b"", True)]
    assert live(link.dialler) == live(link.acceptor) == []


def test_go_away_ends_requests_that_were_not_sent(make_link: Make) -> None:
    link = make_link(acceptor={"hello": {"max_streams": 1}})
    link.open()
    first, second = link.dialler.open_stream(STAT), link.dialler.open_stream(STAT)
    link.settle()
    link.acceptor.go_away()
    told, _ = link.settle()
    assert told[1:] == [StreamReset(second, ErrorCode.SHUTTING_DOWN, "")]
    link.acceptor.respond(first, ObjectInfo(1))
    link.acceptor.release(first)
    told, at_acceptor = link.settle()
    assert [type(event) for event in told] == [ResponseReceived]
    assert at_acceptor == []


def test_go_away_does_not_tell_of_streams_that_interest_nobody(link: Any) -> None:
    link.acceptor.go_away()
    stream = link.dialler.open_stream(PUT, b"x", end=False)
    link.take(link.dialler)
    link.dialler.stop(stream, CANCELLED)
    assert [type(event) for event in link.move(link.acceptor)] == [GoAwayReceived]
    assert live(link.dialler) == []


def test_refused_bodies_are_bounded(raw: Any, frame: Make, closing: Make) -> None:
    raw.session.go_away()
    raw.send(frame(F.REQUEST, 1, message=PUT))
    piece = bytes(8) + bytes(60_000)
    for _ in range((1 << 20) // 60_000):
        assert raw.send(frame(F.DATA, 1, piece)) == []
    assert closing(raw.send(frame(F.DATA, 1, piece))).code is ErrorCode.FRAME_ERROR


def test_methods_do_nothing_after_the_end(link: Any) -> None:
    stream = link.dialler.open_stream(GET)
    link.settle()
    link.dialler.close(ErrorCode.INTERNAL, "defect")
    link.settle()
    link.acceptor.respond(stream, RowsFollow())
    link.acceptor.send_data(stream, b"x")
    link.acceptor.consume(stream, 1)
    link.acceptor.release(stream)
    link.acceptor.go_away()
    link.acceptor.close()
    assert link.acceptor.events() == []
    assert link.acceptor.next_record(0.0) is None
    assert not link.acceptor.has_output
    with pytest.raises(LocalProtocolError):
        link.acceptor.open_stream(STAT)


def test_close_takes_along_what_is_ready(link: Any) -> None:
    stream = link.dialler.open_stream(STAT)
    link.settle()
    link.acceptor.respond(stream, ObjectInfo(1))
    link.acceptor.close(ErrorCode.SHUTTING_DOWN, "bye")
    (record,) = link.take(link.acceptor)
    answer, closed = link.give(link.dialler, record)
    assert answer == ResponseReceived(stream, ObjectInfo(1), b"", True)
    assert isinstance(closed.error, ConnectionLost)
    assert closed.error.code is ErrorCode.SHUTTING_DOWN


def test_reason_is_cut_to_what_a_frame_takes(raw: Any) -> None:
    raw.session.close(ErrorCode.INTERNAL, "ä" * 1000)
    (last,) = raw.receive()
    assert decode_as(last.meta, control.Close, lenient=False).text == "ä" * 256
