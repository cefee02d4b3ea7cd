"""Credit and priorities: nobody sends more than allowed or waits for ever, urgent goes first."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from alpyne_proto.codec import decode_as
from alpyne_proto.compression import Compression
from alpyne_proto.errors import ErrorCode, LocalProtocolError
from alpyne_proto.events import (
    DataReceived,
    InterruptReceived,
    RequestReceived,
    ResponseReceived,
    StreamWritable,
)
from alpyne_proto.frame import Flags, FrameType
from alpyne_proto.limits import BULK_DATA_MAX, CONNECTION_WINDOW, RECORD_MAX, STREAM_WINDOW
from alpyne_proto.messages import control
from alpyne_proto.messages.compute import CancelJobs, PushEvents
from alpyne_proto.messages.data import GetObject, ObjectInfo, PutObject, StatObject

PUT = PutObject(b"c" * 16, "path", 1, b"w" * 16, 1 << 40)
GET = GetObject(b"c" * 16, "path")
STAT = StatObject(b"c" * 16, "path")
NOISE = random.Random(5).randbytes(1 << 20)
Make = Callable[..., Any]
F = FrameType


@pytest.fixture
def plain(make_link: Make) -> Any:
    """A link in state OPEN that does not compress."""
    link = make_link({"compression": Compression.OFF}, {"compression": Compression.OFF})
    link.open()
    return link


def small(make_link: Make, stream: int, connection: int) -> Any:
    """Return a link whose acceptor grants small windows."""
    windows = {"max_stream_data": stream, "max_data": connection}
    link = make_link({"compression": Compression.OFF}, {"hello": windows})
    link.open()
    return link


def body(events: list[Any]) -> int:
    """Return how many body bytes events tell."""
    return sum(
        len(event.data if isinstance(event, DataReceived) else event.payload)
        for event in events
        if isinstance(event, DataReceived | RequestReceived | ResponseReceived)
    )


# --- credit -----------------------------------------------------------------------------------


def test_sender_stops_at_the_streams_window_and_goes_on_when_bytes_are_consumed(
    plain: Any,
) -> None:
    stream = plain.dialler.open_stream(PUT, bytes(3 * STREAM_WINDOW), end=True)
    _, told = plain.settle()
    assert body(told) == STREAM_WINDOW
    assert plain.settle() == ([], [])
    plain.acceptor.consume(stream, STREAM_WINDOW // 2)
    _, told = plain.settle()
    assert body(told) == STREAM_WINDOW // 2


def test_sender_stops_at_the_connections_window_and_shares_what_is_given_back(
    plain: Any,
) -> None:
    streams = [plain.dialler.open_stream(PUT, bytes(STREAM_WINDOW), end=False) for _ in range(20)]
    _, told = plain.settle()
    assert body(told) == CONNECTION_WINDOW
    for stream in streams[:10]:
        plain.acceptor.consume(stream, 200_000)
    _, told = plain.settle()
    assert body(told) == 10 * 200_000
    assert {event.stream_id for event in told} == set(streams)


def test_credit_is_announced_in_quarters_not_for_each_byte(raw: Any, frame: Make) -> None:
    raw.send(frame(F.REQUEST, 1, message=PUT))
    limits = []
    for i in range(20):
        raw.send(frame(F.DATA, 1, (i * 50_000).to_bytes(8) + bytes(50_000)))
        raw.session.consume(1, 50_000)
        limits += [decode_as(f.meta, control.MaxStreamData, lenient=True) for f in raw.receive()]
    assert limits == [control.MaxStreamData(STREAM_WINDOW + n * 300_000) for n in (1, 2, 3)]


def test_credit_is_announced_in_smaller_steps_to_a_sender_that_runs_out(
    raw: Any, frame: Make
) -> None:
    raw.send(frame(F.REQUEST, 1, message=PUT))
    for i in range(20):
        raw.send(frame(F.DATA, 1, (i * 50_000).to_bytes(8) + bytes(50_000)))
    raw.session.consume(1, 50_000)
    assert raw.receive() == []
    raw.session.consume(1, 50_000)
    assert len(raw.receive()) == 1


def test_no_credit_is_announced_for_a_body_that_has_ended(raw: Any, frame: Make) -> None:
    raw.send(frame(F.REQUEST, 1, message=PUT))
    raw.send(frame(F.DATA, 1, bytes(8) + bytes(60_000), flags=Flags.END))
    raw.session.consume(1, 60_000)
    assert raw.receive() == []


def test_peer_that_overruns_a_streams_credit_is_refused(
    raw: Any, frame: Make, closing: Make
) -> None:
    raw.send(frame(F.REQUEST, 1, message=PUT))
    pieces = STREAM_WINDOW // 32_768
    for i in range(pieces):
        raw.send(frame(F.DATA, 1, (i * 32_768).to_bytes(8) + bytes(32_768)))
    assert not raw.session.closed
    events = raw.send(frame(F.DATA, 1, STREAM_WINDOW.to_bytes(8) + b"x"))
    assert closing(events).code is ErrorCode.FLOW_CONTROL_ERROR


def test_peer_that_overruns_the_connections_credit_is_refused(
    make_raw: Make, frame: Make, closing: Make
) -> None:
    raw = make_raw(hello={"max_data": 100_000})
    raw.send(frame(F.REQUEST, 1, bytes(50_000), message=PUT))
    raw.send(frame(F.REQUEST, 3, bytes(50_000), message=PUT))
    assert not raw.session.closed
    events = raw.send(frame(F.DATA, 3, (50_000).to_bytes(8) + b"x"))
    assert closing(events).code is ErrorCode.FLOW_CONTROL_ERROR


def test_limits_that_fall_mean_nothing(raw: Any, frame: Make) -> None:
    raw.session.open_stream(PUT, end=False)
    raw.receive()
    raw.send(
        frame(F.MAX_DATA, message=control.MaxData(1)),
        frame(F.MAX_STREAM_DATA, 2, message=control.MaxStreamData(1)),
        frame(F.MAX_STREAMS, message=control.MaxStreams(1)),
    )
    raw.session.send_data(2, NOISE[:1000])
    assert len(raw.receive()[0].payload) == 1008
    assert raw.session.open_room == 255


def test_empty_requests_and_ends_need_no_credit(make_link: Make) -> None:
    link = small(make_link, 10, 10)
    stream = link.dialler.open_stream(PUT, bytes(10), end=False)
    link.dialler.send_data(stream, b"", end=True)
    link.dialler.open_stream(STAT)
    _, told = link.settle()
    assert [(event.stream_id, event.end) for event in told] == [(1, True), (3, True)]


def test_request_whose_body_has_no_credit_goes_out_without_it(make_link: Make) -> None:
    link = small(make_link, 100, 100)
    link.dialler.open_stream(PUT, bytes(100), end=False)
    second = link.dialler.open_stream(PUT, bytes(50))
    _, told = link.settle()
    assert [body([event]) for event in told] == [100, 0]
    link.acceptor.consume(1, 100)
    _, told = link.settle()
    assert told == [DataReceived(second, bytes(50), True, None)]


def test_bytes_that_nobody_reads_give_the_connections_credit_back(make_link: Make) -> None:
    link = small(make_link, 1000, 1000)
    for _ in range(5):
        stream = link.dialler.open_stream(PUT, bytes(1000), end=False)
        link.settle()
        link.acceptor.stop(stream, ErrorCode.CANCELLED)
        link.acceptor.release(stream)
        link.settle()
    _, told = link.settle()
    link.dialler.open_stream(PUT, bytes(1000))
    _, told = link.settle()
    assert body(told) == 1000


def test_session_refuses_to_consume_what_did_not_come(plain: Any) -> None:
    stream = plain.dialler.open_stream(PUT, b"12345", end=False)
    plain.settle()
    plain.acceptor.consume(stream, 5)
    for size in (1, -1):
        with pytest.raises(LocalProtocolError, match="consumed"):
            plain.acceptor.consume(stream, size)


def test_answer_stays_known_until_its_bytes_are_consumed(plain: Any) -> None:
    stream = plain.dialler.open_stream(GET)
    plain.settle()
    plain.acceptor.respond(stream, ObjectInfo(1), b"12345")
    plain.acceptor.release(stream)
    plain.settle()
    assert list(plain.dialler._streams.live) == [stream]
    plain.dialler.consume(stream, 2)
    plain.dialler.consume(stream, 3)
    assert list(plain.dialler._streams.live) == []


# --- room -------------------------------------------------------------------------------------


def test_room_ends_at_the_queue_and_comes_back_when_it_drains(plain: Any) -> None:
    dialler = plain.dialler
    stream = dialler.open_stream(PUT, end=False)
    plain.settle()
    room = dialler.send_room(stream)
    assert 0 < room <= STREAM_WINDOW
    dialler.send_data(stream, bytes(room))
    assert dialler.send_room(stream) == 0
    plain.give(plain.acceptor, dialler.next_record(0.0), dialler.next_record(0.0))
    assert dialler.events() == []
    plain.give(plain.acceptor, dialler.next_record(0.0))
    assert dialler.events() == [StreamWritable(stream)]
    assert dialler.send_room(stream) > 0


def test_room_ends_at_the_window_and_comes_back_with_credit(plain: Any) -> None:
    dialler = plain.dialler
    stream = dialler.open_stream(PUT, end=False)
    sent = 0
    while room := dialler.send_room(stream):
        dialler.send_data(stream, bytes(room))
        sent += room
        plain.settle()
    assert sent == STREAM_WINDOW
    assert plain.settle() == ([], [])
    plain.acceptor.consume(stream, STREAM_WINDOW)
    told, _ = plain.settle()
    assert told == [StreamWritable(stream)]


def test_room_comes_back_when_another_stream_gives_up_its_queue(make_link: Make) -> None:
    link = small(make_link, 100_000, 100_000)
    greedy = link.dialler.open_stream(PUT, bytes(100_000), end=False)
    waiting = link.dialler.open_stream(PUT, end=False)
    assert link.dialler.send_room(waiting) == 0
    link.dialler.reset(greedy, ErrorCode.CANCELLED)
    assert link.dialler.events() == [StreamWritable(waiting)]


def test_writer_is_not_woken_for_a_stream_whose_side_has_ended(plain: Any) -> None:
    dialler = plain.dialler
    stream = dialler.open_stream(PUT, bytes(STREAM_WINDOW), end=False)
    assert dialler.send_room(stream) == 0
    dialler.reset(stream, ErrorCode.CANCELLED)
    assert dialler.events() == []


def test_two_sides_with_full_windows_still_hear_each_other(plain: Any) -> None:
    """Both send until neither may, then both consume: everything arrives."""
    sent = {plain.dialler: 0, plain.acceptor: 0}
    read = {plain.dialler: 0, plain.acceptor: 0}
    total = 3 * CONNECTION_WINDOW
    streams = {
        plain.dialler: [plain.dialler.open_stream(PUT, end=False) for _ in range(32)],
        plain.acceptor: [plain.acceptor.open_stream(PUT, end=False) for _ in range(32)],
    }
    unread: dict[Any, list[tuple[int, int]]] = {plain.dialler: [], plain.acceptor: []}
    stalls = 0
    while min(read.values()) < total:
        for session, ids in streams.items():
            for stream in ids:
                room = session.send_room(stream)
                if room:
                    session.send_data(stream, memoryview(NOISE)[:room])
                    sent[session] += room
        for session, told in zip(sent, plain.settle(), strict=True):
            for event in told:
                if size := body([event]):
                    unread[session].append((event.stream_id, size))
        if all(not session.send_room(i) for session, ids in streams.items() for i in ids):
            stalls += 1
            plain.dialler.interrupt(CancelJobs((b"j" * 16,)))
            plain.now += 1
            _, told = plain.settle()
            assert isinstance(told[0], InterruptReceived)
            for session, pieces in unread.items():
                for stream, size in pieces:
                    session.consume(stream, size)
                    read[session] += size
                pieces.clear()
    assert stalls >= 3


# --- priorities -------------------------------------------------------------------------------


def test_one_record_carries_all_small_frames_that_are_ready(plain: Any) -> None:
    for _ in range(100):
        plain.dialler.open_stream(STAT)
    (record,) = plain.take(plain.dialler)
    assert len(plain.give(plain.acceptor, record)) == 100


def test_records_keep_their_maximum(plain: Any) -> None:
    plain.dialler.open_stream(PUT, bytes(CONNECTION_WINDOW), end=False)
    for _ in range(200):
        plain.dialler.open_stream(PUT, NOISE[:1500])
    records = plain.take(plain.dialler)
    assert max(len(record) for record in records) <= RECORD_MAX + 4
    events = plain.give(plain.acceptor, *records)
    largest = max(len(event.data) for event in events if isinstance(event, DataReceived))
    assert largest == BULK_DATA_MAX


def test_rest_of_a_record_is_filled_where_that_is_worth_a_frame(plain: Any) -> None:
    plain.dialler.open_stream(PUT, NOISE[:30_000], end=False)
    plain.dialler.open_stream(PUT, end=False)
    plain.dialler.send_data(3, NOISE[:100_000])
    first, second, *_ = plain.take(plain.dialler)
    assert len(first) > RECORD_MAX - 100
    plain.dialler.open_stream(PUT, NOISE[:60_000], end=False)
    plain.dialler.open_stream(PUT, NOISE[:60_000], end=False)
    first, second = plain.take(plain.dialler)
    assert 60_000 < len(first) < 60_300
    assert 60_000 < len(second) < 60_300


def test_interrupt_overtakes_bulk_that_waits(plain: Any) -> None:
    stream = plain.dialler.open_stream(PUT, NOISE, end=False)
    plain.give(plain.acceptor, plain.dialler.next_record(0.0))
    number = plain.dialler.interrupt(CancelJobs((b"j" * 16,)))
    told = plain.give(plain.acceptor, plain.dialler.next_record(0.0))
    assert told[0] == InterruptReceived(number, CancelJobs((b"j" * 16,)))
    assert told[1].stream_id == stream


def test_interrupts_are_told_before_the_data_of_their_record(raw: Any, frame: Make) -> None:
    raw.send(frame(F.REQUEST, 1, message=PUT))
    told = raw.send(
        frame(F.DATA, 1, bytes(8) + b"x"),
        frame(F.INTERRUPT, 1, message=CancelJobs((b"a" * 16,))),
        frame(F.DATA, 1, (1).to_bytes(8) + b"y"),
        frame(F.INTERRUPT, 2, message=CancelJobs((b"b" * 16,))),
    )
    assert [
        getattr(event, "interrupt_id", event.stream_id if i > 1 else 0)
        for i, event in enumerate(told)
    ] == [1, 2, 1, 1]
    assert [type(event) for event in told] == 2 * [InterruptReceived] + 2 * [DataReceived]


def test_small_answers_do_not_wait_for_bulk(plain: Any) -> None:
    plain.dialler.open_stream(PUT, NOISE, end=False)
    plain.give(plain.acceptor, plain.dialler.next_record(0.0))
    quick = plain.dialler.open_stream(STAT, urgency=1)
    told = plain.give(
        plain.acceptor, plain.dialler.next_record(0.0), plain.dialler.next_record(0.0)
    )
    assert quick in [event.stream_id for event in told]


def test_more_urgent_bodies_get_more_and_none_gets_nothing(plain: Any) -> None:
    urgent = plain.acceptor.open_stream(PushEvents(1), NOISE, end=False, urgency=1)
    lazy = plain.acceptor.open_stream(PushEvents(2), NOISE, end=False, urgency=7)
    got = {urgent: 0, lazy: 0}
    while got[urgent] < len(NOISE):
        for event in plain.give(plain.dialler, plain.acceptor.next_record(0.0)):
            got[event.stream_id] += body([event])
    assert 0.05 * len(NOISE) <= got[lazy] <= 0.25 * len(NOISE)
