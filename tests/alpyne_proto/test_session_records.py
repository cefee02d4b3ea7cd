"""What happens to records on the way: any change ends the connection, any split changes nothing."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alpyne_proto.errors import ConnectionLost, ErrorCode, RecordError
from alpyne_proto.events import ConnectionClosed, DataReceived, Event, RequestReceived
from alpyne_proto.messages.access import GetStatus, NodeStatus
from alpyne_proto.messages.compute import CancelJobs
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.messages.data import PutObject
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.registry import State

PUT = PutObject(b"c" * 16, "path", 1, b"w" * 16, 1 << 20)
MakeLink = Callable[..., Any]


def three_records(link: Any) -> list[bytes]:
    """Return three records of the dialler, each with a request."""
    records = []
    for _ in range(3):
        link.dialler.open_stream(GetStatus())
        records += link.take(link.dialler)
    assert len(records) == 3
    return records


def opened(make_link: MakeLink) -> Any:
    link = make_link()
    link.open()
    return link


def test_records_in_order_are_three_requests(link: Any) -> None:
    events = link.give(link.acceptor, *three_records(link))
    assert [event.stream_id for event in events] == [1, 3, 5]


def refused(link: Any, *records: bytes) -> list[Event]:
    """Return what an acceptor tells before it closes for a bad record, in silence."""
    *before, last = link.give(link.acceptor, *records)
    assert isinstance(last, ConnectionClosed)
    assert isinstance(last.error, RecordError)
    assert link.take(link.acceptor) == []
    assert link.acceptor.closed
    return before


def test_acceptor_closes_when_any_bit_of_a_record_is_flipped(make_link: MakeLink) -> None:
    size = len(three_records(opened(make_link))[0])
    for bit in range(8 * size):
        link = opened(make_link)
        record = bytearray(three_records(link)[0])
        record[bit // 8] ^= 1 << bit % 8
        events = link.give(link.acceptor, bytes(record)) + link.acceptor.tick(15.0)
        assert [type(event) for event in events] == [ConnectionClosed], f"bit {bit}"


def test_acceptor_closes_when_a_record_is_replayed(link: Any) -> None:
    first, second, _ = three_records(link)
    assert len(refused(link, first, second, first)) == 2


def test_acceptor_closes_when_records_change_places(link: Any) -> None:
    first, second, third = three_records(link)
    assert len(refused(link, first, third, second)) == 1


def test_acceptor_closes_when_a_record_is_left_out(link: Any) -> None:
    _, second, _ = three_records(link)
    assert refused(link, second) == []


def test_acceptor_closes_when_a_record_is_cut_and_others_follow(link: Any) -> None:
    first, second, _ = three_records(link)
    assert refused(link, first[:-1], second) == []


def test_dialler_closes_when_its_own_record_comes_back(link: Any) -> None:
    (first, *_) = three_records(link)
    (event,) = link.give(link.dialler, first)
    assert isinstance(event.error, RecordError)


def test_acceptor_closes_when_a_record_of_another_connection_comes(make_link: MakeLink) -> None:
    here = opened(make_link)
    there = make_link(dialler={"seed": 7})
    there.open()
    assert refused(here, three_records(there)[0]) == []


def test_acceptor_takes_nothing_after_a_bad_record(link: Any) -> None:
    first, second, third = three_records(link)
    refused(link, first, third)
    assert link.give(link.acceptor, second, third) == []


def test_session_is_truncated_when_the_stream_ends_inside_a_record(link: Any) -> None:
    first, _, _ = three_records(link)
    assert link.give(link.acceptor, first[:-3]) == []
    (event,) = link.acceptor.receive_eof(0.0)
    assert isinstance(event.error, ConnectionLost)
    assert event.error.code is ErrorCode.TRUNCATED


def test_session_is_truncated_when_the_stream_ends_without_close(link: Any) -> None:
    (event,) = link.dialler.receive_eof(0.0)
    assert isinstance(event.error, ConnectionLost)
    assert event.error.code is ErrorCode.TRUNCATED
    assert link.dialler.receive_eof(0.0) == []


def test_session_ends_cleanly_when_close_came_before_the_end(link: Any) -> None:
    link.dialler.close()
    assert link.settle() == ([ConnectionClosed(None)], [ConnectionClosed(None)])
    assert link.acceptor.receive_eof(0.0) == []


# --- any split --------------------------------------------------------------------------------


def conversation(link: Any) -> bytes:
    """Return bytes of the dialler that hold requests, bodies, interrupts, and a close."""
    dialler = link.dialler
    stream = dialler.open_stream(PUT, b"begin", end=False)
    dialler.open_stream(GetStatus(), want_ack=True)
    sent = link.take(dialler)
    dialler.send_data(stream, bytes(70_000))
    dialler.interrupt(CancelJobs((b"j" * 16,)))
    sent += link.take(dialler)
    dialler.send_data(stream, b"end", end=True, trailer=BodyDigest(b"h" * 32))
    dialler.close()
    return b"".join(sent + link.take(dialler))


@settings(max_examples=60)
@given(cuts=st.lists(st.one_of(st.integers(0, 400), st.integers(0, 71_000)), max_size=40))
def test_session_tells_the_same_for_any_split(make_link: MakeLink, cuts: list[int]) -> None:
    link, whole = opened(make_link), opened(make_link)
    data = conversation(link)
    expected = in_order(whole.give(whole.acceptor, conversation(whole)))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(edges)]
    assert in_order(link.give(link.acceptor, *pieces)) == expected


def test_session_tells_the_same_byte_by_byte(make_link: MakeLink) -> None:
    link, whole = opened(make_link), opened(make_link)
    pieces = [bytes((byte,)) for byte in conversation(link)]
    expected = in_order(whole.give(whole.acceptor, conversation(whole)))
    assert in_order(link.give(link.acceptor, *pieces)) == expected
    assert len(expected) == 7


def test_handshake_works_byte_by_byte(make_link: MakeLink) -> None:
    link = make_link()
    for sender in (link.dialler, link.acceptor, link.dialler):
        (data,) = link.take(sender)
        events = link.give(link.other(sender), *(bytes((byte,)) for byte in data))
    assert len(events) == 1
    link.acceptor.promote(State.OPEN)
    link.settle()
    assert link.dialler.state is State.OPEN


def in_order(events: list[Event]) -> list[Event]:
    """Return events with their payloads as bytes, so that they can be compared."""
    plain: list[Event] = []
    for event in events:
        if isinstance(event, DataReceived):
            event = DataReceived(event.stream_id, bytes(event.data), event.end, event.trailer)
        elif isinstance(event, RequestReceived):
            event = RequestReceived(event.stream_id, event.message, bytes(event.payload), event.end)
        plain.append(event)
    return plain


def test_answers_of_the_acceptor_are_told_in_order(link: Any) -> None:
    first, second = (link.dialler.open_stream(GetStatus()) for _ in range(2))
    link.settle()
    link.acceptor.respond(second, NodeStatus(NodeKind.DATA))
    link.acceptor.respond(first, NodeStatus(NodeKind.DATA))
    events, _ = link.settle()
    assert [event.stream_id for event in events] == [second, first]
