"""Bulk: bounded memory, no deadlock, urgent things first, files end to end."""

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.wire import FileBody, FileSink, Request, shell

from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.messages.access import GetStatus, NodeStatus
from alpyne_proto.messages.compute import (
    CancelJobs,
    GetResult,
    JobState,
    PushEvents,
    PutBlob,
    ResultFollows,
)
from alpyne_proto.messages.control import BodyDigest, Done
from alpyne_proto.messages.hello import NodeKind

BLOCK = random.Random(3).randbytes(1 << 20)
PUT = PutBlob(bytes(32), 0)
GET = GetResult(bytes(16))
RESULT = ResultFollows(JobState.DONE, 1, 1, 0, bytes(32))


class Counted:
    """A body of blocks that knows how many were taken."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.taken = 0

    def __iter__(self) -> Any:
        for _ in range(self.blocks):
            self.taken += 1
            yield BLOCK


class Hole:
    """A sink that takes everything, or nothing for a while."""

    def __init__(self) -> None:
        self.size = 0
        self.is_full = False
        self.callback: Any = None

    def feed(self, data: Any) -> bool:
        self.size += len(data)
        return not self.is_full

    def when_room(self, callback: Any) -> None:
        self.callback = callback


async def give_endlessly(request: Request) -> None:
    await request.reply(RESULT, Counted(1 << 30))


async def swallow(request: Request) -> None:
    await request.body.pour(Hole())
    request.reply_nowait(Done())


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_sender_takes_no_more_than_the_window_when_the_reader_does_not_read(
    peers: Any, recorder: Any
) -> None:
    entered = asyncio.Event()

    async def ignore(request: Request) -> None:
        entered.set()
        await asyncio.Event().wait()

    recorder.add({PutBlob: ignore})
    async with peers.in_memory(recorder) as (connection, _):
        body = Counted(1000)
        call = asyncio.ensure_future(connection.call(PUT, body))
        await entered.wait()
        for _ in range(300):
            await asyncio.sleep(0)
        assert body.taken <= 3  # 1 MiB of credit, the session's queue, and one block that waits
        call.cancel()


async def test_sink_that_is_full_holds_the_sender_back_until_it_has_room(
    peers: Any, recorder: Any
) -> None:
    hole = Hole()
    hole.is_full = True

    async def pour(request: Request) -> None:
        await request.body.pour(hole)
        request.reply_nowait(Done())

    recorder.add({PutBlob: pour})
    async with peers.in_memory(recorder) as (connection, _):
        call = asyncio.ensure_future(connection.call(PUT, Counted(20)))
        for _ in range(300):
            await asyncio.sleep(0)
        assert 0 < hole.size <= 1 << 20
        hole.is_full = False
        hole.callback()
        await call
        assert hole.size == 20 << 20


async def test_other_streams_go_on_when_one_reader_does_not_read(peers: Any, recorder: Any) -> None:
    recorder.add({GetResult: give_endlessly})
    async with peers.in_memory(recorder) as (connection, _):
        stuck = await connection.call(GET)
        other = await connection.call(GET)
        hole = Hole()
        pouring = asyncio.ensure_future(other.body.pour(hole))
        await until(lambda: hole.size > 40 << 20)
        assert stuck.body.received <= 1 << 20
        pouring.cancel()
        stuck.body.cancel()


async def test_both_directions_end_when_both_are_full_of_bulk(peers: Any, recorder: Any) -> None:
    async def both(request: Request) -> None:
        writer = request.start_reply(RESULT)
        hole = Hole()
        reading = asyncio.ensure_future(request.body.pour(hole))
        for _ in range(16):
            await writer.write(BLOCK)
        await reading
        await writer.end()

    recorder.add({PutBlob: swallow, GetResult: both})
    dialling = type(recorder)()
    dialling.add({PushEvents: swallow})
    small = {"max_data": 1 << 20, "max_stream_data": 256 << 10}
    async with peers.in_memory(
        recorder, dialling, capacity=64 << 10, node=small, manager=small
    ) as (connection, accepted):

        async def get() -> int:
            answer = await connection.call(GET)
            hole = Hole()
            await answer.body.pour(hole)
            return hole.size

        async def push() -> None:
            stream = await accepted.open(PushEvents(1))
            for _ in range(16):
                await stream.write(BLOCK)
            await stream.end()
            await stream.answer()

        puts = [connection.call(PUT, Counted(16)) for _ in range(3)]
        gets = [get() for _ in range(3)]
        results = await asyncio.gather(*gets, *puts, push(), push())
        assert results[:3] == [16 << 20] * 3


async def test_interrupts_and_calls_overtake_bulk_that_fills_both_directions(
    peers: Any, recorder: Any
) -> None:
    recorder.add(
        {
            GetResult: give_endlessly,
            PutBlob: swallow,
            GetStatus: lambda request: request.reply_nowait(NodeStatus(NodeKind.COMPUTE)),
        }
    )
    loop = asyncio.get_running_loop()
    async with peers.over_tcp(recorder) as connection:
        hole = Hole()
        answer = await connection.call(GET)
        getting = asyncio.ensure_future(answer.body.pour(hole))
        putting = asyncio.ensure_future(connection.call(PUT, Counted(1 << 30)))
        await until(lambda: hole.size > 8 << 20)
        took_s = []
        for _ in range(40):
            began = loop.time()
            await connection.interrupt(CancelJobs((bytes(16),)))
            took_s.append(loop.time() - began)
            await connection.call(GetStatus(), urgency=1)
        assert sorted(took_s)[36] < 1  # a smoke test: both sides share one thread here
        for task in (getting, putting):
            task.cancel()


async def test_file_goes_there_and_back_with_its_digest(
    peers: Any, recorder: Any, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(BLOCK * 9 + b"rest")
    digest = hashlib.sha256(BLOCK * 9 + b"rest").digest()

    async def put(request: Request) -> None:
        sink = FileSink(tmp_path / "there", durable=True)
        await request.body.pour(sink)
        await sink.finish()
        assert request.body.trailer == BodyDigest(sink.sha256)
        request.reply_nowait(Done())

    async def get(request: Request) -> None:
        await request.reply(RESULT, FileBody(tmp_path / "there"))

    recorder.add({PutBlob: put, GetResult: get})
    async with peers.over_tcp(recorder) as connection:
        body = FileBody(tmp_path / "source", digest=True)
        await connection.call(PUT, body, trailer=lambda: BodyDigest(body.sha256))
        answer = await connection.call(GET)
        sink = FileSink(tmp_path / "back")
        await answer.body.pour(sink)
        await sink.finish()
        assert sink.sha256 == digest


async def test_pour_raises_what_the_sink_raises_and_stops_the_sender(
    peers: Any, recorder: Any, tmp_path: Path
) -> None:
    def refuse(piece: object) -> None:
        raise RequestFailed(ErrorCode.QUOTA_EXCEEDED, "the quota is used up")

    async def put(request: Request) -> None:
        sink = FileSink(tmp_path / "part", tap=refuse)
        try:
            await request.body.pour(sink)
            await sink.finish()
        finally:
            await sink.abort()

    recorder.add({PutBlob: put})
    async with peers.over_tcp(recorder) as connection:
        body = Counted(10_000)
        with pytest.raises(RequestFailed, match="quota is used up"):
            await connection.call(PUT, body)
        assert body.taken < 100


async def test_many_small_pieces_cost_no_more_memory_than_their_bytes(
    peers: Any, recorder: Any
) -> None:
    bodies: list[Any] = []

    async def ignore(request: Request) -> None:
        bodies.append(request.body)
        await asyncio.Event().wait()

    recorder.add({PutBlob: ignore})
    async with peers.in_memory(recorder) as (connection, _):
        stream = await connection.open(PUT)
        for _ in range(2000):
            await stream.write(b"0123456789")
            await asyncio.sleep(0)
        await until(lambda: bodies and bodies[0].received == 20_000)
        assert len(bodies[0]._chunks) == 1
        stream.cancel()


async def test_plain_function_answers_with_a_body_larger_than_the_window(
    peers: Any, recorder: Any
) -> None:
    recorder.add({GetResult: lambda request: request.start_reply(RESULT).start(BLOCK * 5)})
    async with peers.in_memory(recorder) as (connection, accepted):
        answer = await connection.call(GET)
        assert await answer.body.read(5 << 20) == BLOCK * 5
        assert not accepted.has_work


async def test_read_buffer_grows_with_bulk_and_shrinks_when_the_connection_is_quiet(
    peers: Any, recorder: Any
) -> None:
    status = NodeStatus(NodeKind.COMPUTE)
    recorder.add({PutBlob: swallow, GetStatus: lambda request: request.reply_nowait(status)})
    async with peers.in_memory(recorder, capacity=1 << 20) as (connection, accepted):
        assert len(accepted.get_buffer(-1)) == shell.READ_MIN
        await connection.call(PUT, Counted(4))
        assert len(accepted.get_buffer(-1)) > shell.READ_MIN
        for _ in range(shell.QUIET_READS + 1):
            await connection.call(GetStatus())
        assert len(accepted.get_buffer(-1)) == shell.READ_MIN
