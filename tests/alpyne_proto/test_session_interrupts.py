"""Interrupts: their rate on both sides, in any delay; told once, acknowledged each time."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpyne_proto.errors import ErrorCode, LocalProtocolError
from alpyne_proto.events import InterruptAcked, InterruptReceived
from alpyne_proto.frame import FrameType
from alpyne_proto.interrupts import TokenBucket
from alpyne_proto.limits import INTERRUPT_BURST, INTERRUPT_MAX
from alpyne_proto.messages.compute import CancelJobs

CANCEL = CancelJobs((b"j" * 16,))
Make = Callable[..., Any]
F = FrameType


def cancels(raw: Any, frame: Make, *ids: int) -> Any:
    return raw.send(*(frame(F.INTERRUPT, number, message=CANCEL) for number in ids))


def test_interrupt_is_told_and_acknowledged(link: Any) -> None:
    assert link.dialler.interrupt(CANCEL) == 1
    assert link.dialler.interrupt(CANCEL) == 2
    told = link.settle()
    assert told == (
        [InterruptAcked(1), InterruptAcked(2)],
        [InterruptReceived(1, CANCEL), InterruptReceived(2, CANCEL)],
    )


def test_interrupt_that_comes_twice_is_told_once_and_acknowledged_twice(
    raw: Any, frame: Make
) -> None:
    assert cancels(raw, frame, 1, 3) == [InterruptReceived(1, CANCEL), InterruptReceived(3, CANCEL)]
    assert cancels(raw, frame, 3, 2, 1) == []
    acks = [(one.type, one.stream_id) for one in raw.receive()]
    assert acks == [(F.INTERRUPT_ACK, number) for number in (1, 3, 3, 2, 1)]


def test_peer_may_send_a_burst_and_then_fifty_a_second(
    raw: Any, frame: Make, closing: Make
) -> None:
    cancels(raw, frame, *range(1, INTERRUPT_BURST + 1))
    raw.now = 1.0
    cancels(raw, frame, *range(100, 150))
    raw.receive()
    assert not raw.session.closed
    assert closing(cancels(raw, frame, 150)).code is ErrorCode.TOO_BUSY


def test_interrupts_beyond_the_burst_wait_for_their_time(link: Any) -> None:
    for _ in range(INTERRUPT_BURST + 10):
        link.dialler.interrupt(CANCEL)
    acked, told = link.settle()
    assert len(told) == len(acked) == INTERRUPT_BURST
    assert link.take(link.dialler) == []
    deadline = link.dialler.next_deadline()
    assert 0 < deadline < 0.05
    link.now = deadline
    assert link.dialler.tick(link.now) == []
    _, told = link.settle()
    assert len(told) == 1
    link.now = 1.0
    assert len(link.settle()[1]) == 9


def test_interrupt_that_may_be_sent_needs_no_tick(link: Any) -> None:
    link.dialler.interrupt(CANCEL)
    assert link.dialler.has_output
    assert link.dialler.next_deadline() == 5.0


def test_interrupts_that_are_not_acknowledged_hold_the_others_back(link: Any) -> None:
    for _ in range(2 * INTERRUPT_BURST):
        link.dialler.interrupt(CANCEL)
    first = link.take(link.dialler)
    link.now = 4.0
    assert link.take(link.dialler) == []
    assert link.dialler.next_deadline() == 5.0  # nothing is due but a ping
    assert len(link.give(link.acceptor, *first)) == INTERRUPT_BURST
    link.settle()
    assert not link.acceptor.closed


def test_burst_of_large_interrupts_fills_one_record_and_goes_on_in_the_next(link: Any) -> None:
    large = CancelJobs(32 * (b"j" * 16,))
    for _ in range(INTERRUPT_BURST):
        link.dialler.interrupt(large)
    parts = link.dialler._outbox.take(0.0, 3000)
    assert sum(map(len, parts)) <= 3000
    assert len(parts) == 5


@settings(max_examples=50)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["send", "wait", "there", "back"]), st.integers(1, 80)),
        max_size=40,
    )
)
def test_sender_never_breaks_the_rate_whatever_the_delays(
    make_link: Make, steps: list[tuple[str, int]]
) -> None:
    """The way there and back holds records up and lets them go in any order of events."""
    link = make_link()
    link.open()
    there: list[bytes] = []
    back: list[bytes] = []
    for step, number in steps:
        if step == "send":
            for _ in range(number):
                link.dialler.interrupt(CANCEL)
        elif step == "wait":
            link.now += number / 40
        elif step == "there":
            link.give(link.acceptor, *there)
            there.clear()
        else:
            link.give(link.dialler, *back)
            back.clear()
        there += link.take(link.dialler)
        back += link.take(link.acceptor)
        assert not link.acceptor.closed
        assert not link.dialler.closed


def test_session_refuses_an_interrupt_that_is_too_large(
    link: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    link.dialler.interrupt(CancelJobs(32 * (b"j" * 16,)))
    monkeypatch.setattr("alpyne_proto.limits.INTERRUPT_MAX", 100)
    with pytest.raises(LocalProtocolError, match="at most 100"):
        link.dialler.interrupt(CancelJobs(32 * (b"j" * 16,)))
    assert INTERRUPT_MAX == 1024
    assert link.dialler.interrupt(CANCEL) == 2


def test_acknowledgement_out_of_order_is_refused(raw_dialler: Any, closing: Make) -> None:
    raw, frame = raw_dialler
    for _ in range(2):
        raw.session.interrupt(CANCEL)
    raw.receive()
    assert closing(raw.send(frame(F.INTERRUPT_ACK, 2))).code is ErrorCode.FRAME_ERROR


@pytest.fixture
def raw_dialler(make_raw: Make, frame: Make) -> Any:
    """A raw acceptor, its session a dialler in state OPEN."""
    return make_raw(is_dialler=False), frame


def test_bucket_holds_no_more_than_its_burst() -> None:
    bucket = TokenBucket(10, 3)
    assert bucket.level(0.0) == 3
    assert bucket.level(100.0) == 3
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.time_of(1, 100.0) == pytest.approx(100.1, abs=0.002)
    assert bucket.take(100.1001)


def test_bucket_does_not_mind_a_clock_that_stands() -> None:
    bucket = TokenBucket(10, 1)
    assert bucket.take(5.0)
    assert not bucket.take(5.0)
    assert not bucket.take(4.0)
