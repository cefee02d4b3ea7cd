"""BodyReader by itself: bytes in, bytes and credit out."""

import asyncio
from typing import Any

import pytest
from alpyne_grid.wire import BodyReader

from alpyne_proto.codec import encode_row
from alpyne_proto.errors import CodecError, ErrorCode, LocalProtocolError, RequestFailed
from alpyne_proto.messages.access import AccountRow
from alpyne_proto.messages.compute import LoadEvent
from alpyne_proto.messages.control import AccountRole

BIG = bytes(20_000)


class Inflow:
    """Keeps what a reader tells its connection."""

    def __init__(self) -> None:
        self.credit = 0
        self.stopped: list[ErrorCode] = []

    def give_credit(self, stream_id: int, size: int) -> None:
        self.credit += size

    def stop_stream(self, stream_id: int, code: ErrorCode, text: str) -> None:
        self.stopped.append(code)


@pytest.fixture
def inflow() -> Inflow:
    return Inflow()


async def test_reader_gives_credit_as_pieces_are_handed_over(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    body.push(BIG, end=False)
    body.push(BIG, end=True)
    assert inflow.credit == 0
    await anext(body)
    assert inflow.credit == 20_000
    await anext(body)
    with pytest.raises(StopAsyncIteration):
        await anext(body)
    assert inflow.credit == 40_000


async def test_reader_waits_for_bytes_that_have_not_come(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    reading = asyncio.ensure_future(body.read())
    for piece in (b"a", b"b", b"c"):
        await asyncio.sleep(0)
        body.push(piece, end=False)
    await asyncio.sleep(0)
    assert not reading.done()
    body.push(b"", end=True)
    assert await reading == b"abc"


async def test_reader_puts_small_pieces_together(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    for _ in range(1000):
        body.push(b"ten bytes.", end=False)
    body.push(b"", end=True)
    assert [piece async for piece in body] == [b"ten bytes." * 1000]


async def test_read_cancels_the_body_when_it_is_longer_than_asked(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    body.push(BIG, end=False)
    with pytest.raises(RequestFailed, match="at most 100 bytes"):
        await body.read(100)
    assert inflow.stopped == [ErrorCode.CANCELLED]
    body.push(BIG, end=False)  # was under way: it is dropped, its credit given back
    assert inflow.credit == 40_000


async def test_reader_raises_after_the_bytes_that_came_before_the_failure(
    inflow: Inflow,
) -> None:
    body = BodyReader(inflow, 1)
    body.push(b"came", end=False)
    body.fail(RequestFailed(ErrorCode.CORRUPT, "damaged"))
    assert await anext(body) == b"came"
    for _ in range(2):
        with pytest.raises(RequestFailed, match="damaged"):
            await anext(body)


async def test_reader_that_waits_is_told_of_a_failure(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    reading = asyncio.ensure_future(body.read())
    await asyncio.sleep(0)
    body.fail(RequestFailed(ErrorCode.CORRUPT, "damaged"))
    with pytest.raises(RequestFailed, match="damaged"):
        await reading


async def test_cancel_gives_back_the_credit_of_what_was_not_read(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    body.push(BIG, end=False)
    body.push(b"small", end=False)
    body.cancel()
    assert inflow.credit == 20_005
    with pytest.raises(RequestFailed, match="cancelled here"):
        await anext(body)
    body.cancel()
    assert inflow.stopped == [ErrorCode.CANCELLED]


async def test_cancel_asks_for_nothing_when_the_body_has_ended(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    body.push(BIG, end=True)
    body.cancel()
    assert inflow.stopped == []
    assert inflow.credit == 20_000


async def test_second_reader_is_refused(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    first = asyncio.ensure_future(anext(body))
    await asyncio.sleep(0)
    with pytest.raises(LocalProtocolError, match="two readers"):
        await anext(body)
    body.push(b"x", end=True)
    assert await first == b"x"


# ---- rows ----


ROW = AccountRow(bytes(32), AccountRole.USER)


async def test_rows_raise_and_cancel_when_the_body_ends_inside_one(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1, (ROW.SPEC.code,))
    body.push(encode_row(ROW) + encode_row(ROW)[:-1], end=True)
    seen = []
    with pytest.raises(CodecError, match="into a row"):
        async for row, _ in body.rows():
            seen.append(row)
    assert seen == [ROW]


async def test_rows_raise_and_stop_the_sender_when_one_is_of_another_kind(
    inflow: Inflow,
) -> None:
    body = BodyReader(inflow, 1)
    body.push(encode_row(LoadEvent(1, 0, 0)), end=False)
    with pytest.raises(CodecError):
        async for _ in body.rows(AccountRow):
            pass
    assert inflow.stopped == [ErrorCode.CODEC_ERROR]


# ---- pour ----


class Tub:
    """A sink of the size that the test says."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.size = 0
        self.error: Exception | None = None
        self.callbacks: list[Any] = []

    def feed(self, data: Any) -> bool:
        if self.error is not None:
            raise self.error
        self.size += len(data)
        return self.size < self.holds

    def when_room(self, callback: Any) -> None:
        self.callbacks.append(callback)


async def test_pour_gives_no_credit_while_the_sink_is_full(inflow: Inflow) -> None:
    body, tub = BodyReader(inflow, 1), Tub(50_000)
    pouring = asyncio.ensure_future(body.pour(tub))
    await asyncio.sleep(0)
    for _ in range(4):
        body.push(BIG, end=False)
    assert (tub.size, inflow.credit) == (80_000, 40_000)
    tub.callbacks[-1]()
    assert inflow.credit == 80_000
    body.push(b"", end=True)
    await pouring


async def test_pour_takes_what_came_before_it(inflow: Inflow) -> None:
    body, tub = BodyReader(inflow, 1), Tub(1 << 20)
    body.push(BIG, end=False)
    body.push(b"end", end=True)
    await body.pour(tub)
    assert tub.size == 20_003
    assert inflow.credit == 20_003


async def test_pour_raises_what_the_sink_raises_and_stops_the_sender(inflow: Inflow) -> None:
    body, tub = BodyReader(inflow, 1), Tub(1 << 20)
    pouring = asyncio.ensure_future(body.pour(tub))
    await asyncio.sleep(0)
    body.push(BIG, end=False)
    tub.error = OSError("disk full")
    body.push(BIG, end=False)
    with pytest.raises(OSError, match="disk full"):
        await pouring
    assert inflow.stopped == [ErrorCode.CANCELLED]
    body.push(BIG, end=False)
    assert inflow.credit == 60_000


async def test_pour_raises_what_ended_the_body(inflow: Inflow) -> None:
    body = BodyReader(inflow, 1)
    pouring = asyncio.ensure_future(body.pour(Tub(1 << 20)))
    await asyncio.sleep(0)
    body.fail(RequestFailed(ErrorCode.CORRUPT, "damaged"))
    with pytest.raises(RequestFailed, match="damaged"):
        await pouring


async def test_pour_stops_the_sender_when_it_is_cancelled(inflow: Inflow) -> None:
    body, tub = BodyReader(inflow, 1), Tub(10)
    pouring = asyncio.ensure_future(body.pour(tub))
    await asyncio.sleep(0)
    body.push(BIG, end=False)
    pouring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pouring
    assert inflow.stopped == [ErrorCode.CANCELLED]
    assert inflow.credit == 20_000
