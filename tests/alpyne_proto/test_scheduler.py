"""Whose turn it is: shares by urgency, a floor for each, turns within one urgency."""

from typing import Any

import pytest

from alpyne_proto.errors import LocalProtocolError
from alpyne_proto.flow import ReceiveCredit, SendCredit
from alpyne_proto.messages.data import PutObject
from alpyne_proto.scheduler import LEAST_URGENT, MOST_URGENT, WEIGHTS, Scheduler
from alpyne_proto.streams import Stream

FRAME = 61_440


def stream(number: int, urgency: int) -> Stream:
    return Stream(number, True, PutObject.SPEC, ReceiveCredit(1), SendCredit(1), urgency)


def serve(scheduler: Scheduler, total: int, size: int = FRAME) -> dict[int, int]:
    """Serve streams that always have more; return bytes by stream."""
    served: dict[int, int] = {}
    while sum(served.values()) < total:
        turn = scheduler.next()
        assert turn is not None
        scheduler.served(turn, size, again=True)
        served[turn.id] = served.get(turn.id, 0) + size
    return served


@pytest.mark.parametrize("size", [100, 5_000, FRAME])
def test_all_urgencies_together_get_shares_by_their_weights(size: int) -> None:
    scheduler = Scheduler()
    for urgency in range(MOST_URGENT, LEAST_URGENT + 1):
        scheduler.add(stream(urgency, urgency))
    total = 100_000_000 if size > 1000 else 10_000_000
    served = serve(scheduler, total, size)
    for urgency, size_bytes in served.items():
        share = size_bytes / sum(served.values())
        assert share == pytest.approx(WEIGHTS[urgency] / sum(WEIGHTS), rel=0.1)
        assert share >= 0.049


def test_streams_of_one_urgency_take_turns() -> None:
    scheduler = Scheduler()
    for number in range(5):
        scheduler.add(stream(number, 3))
    turns = []
    for _ in range(10):
        turn = scheduler.next()
        assert turn is not None
        scheduler.served(turn, FRAME, again=True)
        turns.append(turn.id)
    assert turns == [0, 1, 2, 3, 4] * 2


def test_lone_stream_gets_everything_whatever_its_urgency() -> None:
    scheduler = Scheduler()
    scheduler.add(stream(1, 7))
    assert set(serve(scheduler, 10_000_000)) == {1}


def test_most_urgent_begins_after_a_pause() -> None:
    scheduler = Scheduler()
    for _ in range(3):
        lazy, urgent = stream(1, 7), stream(2, 1)
        scheduler.add(lazy)
        scheduler.add(urgent)
        order = []
        while (turn := scheduler.next()) is not None:
            scheduler.served(turn, FRAME, again=False)
            order.append(turn.id)
        assert order == [2, 1]


def test_urgent_stream_that_comes_later_waits_for_one_share_at_most() -> None:
    scheduler = Scheduler()
    scheduler.add(stream(1, 3))
    serve(scheduler, 10_000_000)
    scheduler.add(stream(2, 1))
    waited = 0
    while (turn := scheduler.next()) is not None and turn.id != 2:
        scheduler.served(turn, FRAME, again=True)
        waited += FRAME
    assert waited <= 2 * FRAME


def test_stream_that_waits_already_is_not_added_twice() -> None:
    scheduler = Scheduler()
    one: Any = stream(1, 3)
    scheduler.add(one)
    scheduler.add(one)
    assert len(scheduler) == 1
    scheduler.served(one, 1, again=False)
    assert len(scheduler) == 0
    assert scheduler.next() is None
    scheduler.add(one)
    assert len(scheduler) == 1


def test_scheduler_refuses_to_count_for_a_stream_whose_turn_it_is_not() -> None:
    scheduler = Scheduler()
    scheduler.add(stream(1, 3))
    with pytest.raises(LocalProtocolError, match="out of turn"):
        scheduler.served(stream(2, 3), 1, again=True)
