"""Calls between two connected peers: answers, bodies, errors, cancelling, the end."""

import asyncio
from typing import Any

import pytest
from alpyne_grid.wire import Connection, Request, RequestLost, RequestTimedOut, shell

from alpyne_proto import limits
from alpyne_proto.codec import encode_row
from alpyne_proto.errors import (
    ConnectionLost,
    ErrorCode,
    Outcome,
    RequestFailed,
)
from alpyne_proto.messages.access import AccountRow, GetStatus, ListAccounts, NodeStatus
from alpyne_proto.messages.compute import (
    CancelJobs,
    GetResult,
    JobState,
    PushEvents,
    PutBlob,
    ResultFollows,
)
from alpyne_proto.messages.control import BodyDigest, Done, RowsFollow
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.registry import State

STATUS = NodeStatus(NodeKind.COMPUTE, slots=2)
JOB = bytes(16)
PUT = PutBlob(bytes(32), 0)
GET = GetResult(JOB)
RESULT = ResultFollows(JobState.DONE, 1, 1, 0, bytes(32))


def answer_status(request: Request) -> None:
    request.reply_nowait(STATUS)


class Gate:
    """A handler that waits until the test lets it go on, and tells what became of it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def handle(self, request: Request) -> None:
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        request.reply_nowait(Done())


async def test_dialler_is_told_its_state_and_role_when_dial_returns(
    peers: Any, recorder: Any
) -> None:
    async with peers.over_tcp(recorder) as connection:
        assert connection.state is State.OPEN
        assert connection.role.name == "USER"
        assert connection.peer_key == peers.node.noise_public
        assert connection.peer_hello == peers.node_hello()
        (accepted,) = recorder.connected
        assert accepted.peer_key == peers.device.noise_public
        assert accepted.source == "127.0.0.1"
    assert recorder.disconnected == [accepted]
    assert connection.error is None


async def test_call_returns_the_answer_of_a_plain_function(peers: Any, recorder: Any) -> None:
    recorder.add({GetStatus: answer_status})
    async with peers.over_tcp(recorder) as connection:
        answer = await connection.call(GetStatus())
        assert answer.message == STATUS
        assert await answer.body.read() == b""
        assert not connection.has_work


async def test_call_returns_the_answer_of_a_coroutine_function(peers: Any, recorder: Any) -> None:
    async def handle(request: Request) -> None:
        await asyncio.sleep(0)
        await request.reply(STATUS)

    recorder.add({GetStatus: handle})
    async with peers.over_tcp(recorder) as connection:
        assert (await connection.call(GetStatus())).message == STATUS
        assert not recorder.connected[0].has_work


async def test_calls_share_records_when_they_are_made_in_one_turn(
    peers: Any, recorder: Any
) -> None:
    recorder.add({GetStatus: answer_status})
    async with peers.in_memory(recorder) as (connection, accepted):
        before = connection.records_written, accepted.records_written
        answers = await asyncio.gather(*(connection.call(GetStatus()) for _ in range(200)))
        assert [answer.message for answer in answers] == [STATUS] * 200
        assert connection.records_written - before[0] <= 3
        assert accepted.records_written - before[1] <= 4


@pytest.mark.parametrize("size", [1, 48 * 1024, 48 * 1024 + 1, 5_000_000])
async def test_body_arrives_whole_in_both_directions(peers: Any, recorder: Any, size: int) -> None:
    data = peers.chance.randbytes(size)

    async def keep(request: Request) -> None:
        assert await request.body.read(size) == data
        await request.reply(Done())

    async def give(request: Request) -> None:
        await request.reply(RESULT, data)

    recorder.add({PutBlob: keep, GetResult: give})
    async with peers.in_memory(recorder) as (connection, _):
        assert (await connection.call(PUT, data)).message == Done()
        answer = await connection.call(GET)
        assert answer.message == RESULT
        assert await answer.body.read(size) == data


async def test_body_comes_from_iterables_with_a_trailer_at_its_end(
    peers: Any, recorder: Any
) -> None:
    digest = BodyDigest(bytes(range(32)))

    async def pieces() -> Any:
        for piece in (b"ab", bytearray(b"cd"), memoryview(b"ef")):
            yield piece

    async def handle(request: Request) -> None:
        body = await request.body.read()
        assert request.body.trailer == digest
        await request.reply(RESULT, [body, b"!"], trailer=lambda: digest)

    recorder.add({PutBlob: handle, GetResult: handle})
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(RequestFailed) as raised:  # PutBlob is not answered by ResultFollows
            await connection.call(PUT, pieces(), trailer=lambda: digest)
        assert raised.value.code is ErrorCode.INTERNAL
        recorder.add({PutBlob: _keep_trailer(digest)})
        assert (await connection.call(PUT, pieces(), trailer=lambda: digest)).message == Done()


def _keep_trailer(digest: BodyDigest) -> Any:
    async def handle(request: Request) -> None:
        assert await request.body.read() == b"abcdef"
        assert request.body.trailer == digest
        request.reply_nowait(Done())

    return handle


async def test_rows_are_read_as_they_arrive(peers: Any, recorder: Any) -> None:
    rows = [AccountRow(bytes([n]) * 32, name=f"account {n}", role=1) for n in range(100)]

    async def handle(request: Request) -> None:
        await request.reply(RowsFollow(100), (encode_row(row) for row in rows))

    recorder.add({ListAccounts: handle})
    async with peers.over_tcp(recorder) as connection:
        answer = await connection.call(ListAccounts())
        assert [row async for row, _ in answer.body.rows(AccountRow)] == rows
        answer = await connection.call(ListAccounts())
        assert [row async for row, _ in answer.body.rows()] == rows


# ---- failures of handlers ----


@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_call_raises_what_the_handler_raised_as_request_failed(
    peers: Any, recorder: Any, is_coroutine: bool
) -> None:
    error = RequestFailed(
        ErrorCode.QUOTA_EXCEEDED, "full", retryable=True, retry_after_ms=7, outcome=Outcome.DONE
    )

    def refuse(request: Request) -> None:
        raise error

    async def refuse_later(request: Request) -> None:
        raise error

    recorder.add({GetStatus: refuse_later if is_coroutine else refuse})
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(RequestFailed, match="full") as raised:
            await connection.call(GetStatus())
        assert vars(raised.value) == vars(error)
        assert not connection.has_work


@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_connection_goes_on_and_one_line_is_logged_when_a_handler_breaks(
    peers: Any, recorder: Any, caplog: pytest.LogCaptureFixture, is_coroutine: bool
) -> None:
    def fail(request: Request) -> None:
        raise KeyError("peer's own bytes")

    async def fail_later(request: Request) -> None:
        fail(request)

    recorder.add({GetStatus: fail_later if is_coroutine else fail, PutBlob: Gate().handle})
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(RequestFailed, match="internal error") as raised:
            await connection.call(GetStatus())
        assert raised.value.code is ErrorCode.INTERNAL
        recorder.add({GetStatus: answer_status})
        assert (await connection.call(GetStatus())).message == STATUS
    (line,) = [record for record in caplog.records if record.message == "handler_failed"]
    fields = line.alpyne_fields  # type: ignore[attr-defined]
    assert fields["error"] == "KeyError"
    assert fields["at"].startswith("test_connection.py:")
    assert fields["incident"] in str(raised.value)
    assert "peer's own bytes" not in str(fields)


async def test_call_fails_as_unsupported_when_the_message_has_no_handler(
    peers: Any, recorder: Any
) -> None:
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(RequestFailed, match="GetStatus is not served here") as raised:
            await connection.call(GetStatus())
        assert raised.value.code is ErrorCode.UNSUPPORTED
        assert raised.value.outcome is Outcome.NOT_STARTED


async def test_call_fails_when_the_handler_ends_without_an_answer(
    peers: Any, recorder: Any
) -> None:
    async def forget(request: Request) -> None:
        pass

    recorder.add({GetStatus: forget})
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(RequestFailed, match="internal error"):
            await connection.call(GetStatus())


async def test_body_of_the_answer_fails_when_the_handler_breaks_in_its_middle(
    peers: Any, recorder: Any
) -> None:
    answered = asyncio.Event()

    async def break_off(request: Request) -> None:
        async def pieces() -> Any:
            yield bytes(100)
            await answered.wait()
            raise RequestFailed(ErrorCode.CORRUPT, "block 2 is damaged")

        await request.reply(RESULT, pieces())

    recorder.add({GetResult: break_off})
    async with peers.over_tcp(recorder) as connection:
        answer = await connection.call(GET)
        answered.set()
        with pytest.raises(RequestFailed, match="block 2 is damaged") as raised:
            await answer.body.read()
        assert raised.value.code is ErrorCode.CORRUPT
        assert not connection.has_work


async def test_plain_function_answers_later_when_it_kept_the_request(
    peers: Any, recorder: Any
) -> None:
    kept: list[Request] = []
    recorder.add({GetStatus: kept.append})
    async with peers.in_memory(recorder) as (connection, accepted):
        call = asyncio.ensure_future(connection.call(GetStatus()))
        while not kept:
            await asyncio.sleep(0)
        assert accepted.has_work
        kept[0].reply_nowait(STATUS)
        assert (await call).message == STATUS
        assert not accepted.has_work


async def test_whole_request_is_known_without_waiting(peers: Any, recorder: Any) -> None:
    seen: list[tuple[bool, bytes]] = []

    def keep(request: Request) -> None:
        seen.append((request.is_whole, bytes(request.payload)))
        request.reply_nowait(Done())

    recorder.add({PutBlob: keep})
    async with peers.over_tcp(recorder) as connection:
        await connection.call(PUT, b"whole")
        with pytest.raises(RequestFailed):  # answered before the body has come: the rest is dropped
            await asyncio.gather(connection.call(PUT, bytes(3_000_000)), _fail())
    assert seen == [(True, b"whole"), (False, b"")]


async def _fail() -> None:
    raise RequestFailed(ErrorCode.CANCELLED, "")


# ---- cancelling, timeouts ----


async def test_handler_is_cancelled_when_the_call_is(peers: Any, recorder: Any) -> None:
    gate = Gate()
    recorder.add({GetStatus: gate.handle})
    async with peers.over_tcp(recorder) as connection:
        call = asyncio.ensure_future(connection.call(GetStatus()))
        await gate.entered.wait()
        call.cancel()
        await gate.cancelled.wait()
        recorder.add({GetStatus: answer_status})
        assert (await connection.call(GetStatus())).message == STATUS
        assert not connection.has_work
        assert not recorder.connected[0].has_work


async def test_kept_request_is_told_when_the_call_is_cancelled(peers: Any, recorder: Any) -> None:
    told = asyncio.Event()
    kept: list[Request] = []

    def keep(request: Request) -> None:
        request.on_cancel = told.set
        kept.append(request)

    recorder.add({GetStatus: keep})
    async with peers.over_tcp(recorder) as connection:
        call = asyncio.ensure_future(connection.call(GetStatus()))
        while not kept:
            await asyncio.sleep(0)
        call.cancel()
        await told.wait()
        assert kept[0].is_cancelled
        kept[0].reply_nowait(STATUS)  # comes to nothing, and gives the stream's place back
        assert not recorder.connected[0].has_work


async def test_call_raises_timed_out_when_no_answer_comes(peers: Any, recorder: Any) -> None:
    gate = Gate()
    recorder.add({GetStatus: gate.handle})
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(RequestTimedOut, match="no answer within 0") as raised:
            await connection.call(GetStatus(), timeout_s=0.05)
        assert raised.value.outcome is Outcome.MAYBE
        await gate.cancelled.wait()


async def test_request_is_given_up_when_the_source_of_its_body_fails(
    peers: Any, recorder: Any
) -> None:
    gate = Gate()

    async def pieces() -> Any:
        yield b"some"
        await gate.entered.wait()
        raise OSError("disk gone")

    recorder.add({PutBlob: gate.handle})
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(OSError, match="disk gone"):
            await connection.call(PUT, pieces())
        await gate.cancelled.wait()
        assert not connection.has_work


async def test_sender_stops_when_the_handler_refuses_in_the_middle_of_the_body(
    peers: Any, recorder: Any
) -> None:
    async def refuse(request: Request) -> None:
        await anext(request.body)
        raise RequestFailed(ErrorCode.QUOTA_EXCEEDED, "too much")

    def endless() -> Any:
        while True:
            yield bytes(100_000)

    recorder.add({PutBlob: refuse, GetStatus: answer_status})
    async with peers.over_tcp(recorder) as connection:
        with pytest.raises(RequestFailed, match="too much"):
            await connection.call(PUT, endless())
        assert (await connection.call(GetStatus())).message == STATUS


async def test_cancelled_body_gives_its_credit_back(peers: Any, recorder: Any) -> None:
    async def endless(request: Request) -> None:
        def pieces() -> Any:
            while True:
                yield bytes(100_000)

        await request.reply(RESULT, pieces())

    recorder.add({GetResult: endless})
    async with peers.in_memory(recorder, manager={"max_data": 1 << 20}) as (connection, accepted):
        for _ in range(10):  # each may fill the whole connection's window
            answer = await connection.call(GET)
            await anext(answer.body)
            answer.body.cancel()
        while accepted.has_work:
            await asyncio.sleep(0)


async def test_many_more_calls_than_streams_are_all_answered(peers: Any, recorder: Any) -> None:
    recorder.add({GetStatus: answer_status})
    async with peers.in_memory(recorder, node={"max_streams": 4}) as (connection, _):
        answers = await asyncio.gather(*(connection.call(GetStatus()) for _ in range(500)))
        assert len(answers) == 500


# ---- pushes and interrupts ----


async def test_push_is_written_row_by_row_and_answered_at_its_end(
    peers: Any, recorder: Any
) -> None:
    received: list[bytes] = []

    async def take(request: Request) -> None:
        async for chunk in request.body:
            received.append(bytes(chunk))
        request.reply_nowait(Done())

    recorder_there = type(recorder)()
    recorder_there.add({PushEvents: take})
    async with peers.in_memory(recorder, recorder_there) as (_, accepted):
        push = await accepted.open(PushEvents(1), urgency=1)
        assert push.try_write(b"one")
        while b"".join(received) != b"one":
            await asyncio.sleep(0)
        await push.write(b"two")
        await push.end()
        assert (await push.answer()).message == Done()
        assert b"".join(received) == b"onetwo"


async def test_writer_of_a_push_is_told_when_the_peer_has_answered_without_reading(
    peers: Any, recorder: Any
) -> None:
    dialling = type(recorder)()
    dialling.add({PushEvents: lambda request: request.reply_nowait(Done())})
    async with peers.in_memory(recorder, dialling) as (_, accepted):
        push = await accepted.open(PushEvents(1))
        with pytest.raises(RequestFailed, match="no more"):
            for _ in range(100):
                await push.write(bytes(100_000))
        assert (await push.answer()).message == Done()


async def test_reader_left_behind_is_told_when_its_handler_has_answered(
    peers: Any, recorder: Any
) -> None:
    readers = []

    async def answer_early(request: Request) -> None:
        readers.append(asyncio.ensure_future(request.body.read(1 << 30)))
        await asyncio.sleep(0)
        request.reply_nowait(Done())

    recorder.add({PutBlob: answer_early})
    async with peers.in_memory(recorder) as (connection, _):
        push = await connection.open(PUT)
        assert (await push.answer()).message == Done()
        with pytest.raises(RequestFailed):
            await readers[0]


async def test_push_says_no_room_when_nobody_reads(peers: Any, recorder: Any) -> None:
    gate = Gate()
    dialling = type(recorder)()
    dialling.add({PushEvents: gate.handle})
    async with peers.in_memory(recorder, dialling) as (_, accepted):
        push = await accepted.open(PushEvents(1))
        taken = 0
        for _ in range(1000):
            taken += push.try_write(bytes(10_000))
            await asyncio.sleep(0)
        assert 50 < taken < 150  # the stream's window of 1 MiB, and a small queue
        assert push.room < 10_000
        push.cancel()


async def test_interrupt_is_handed_over_and_acknowledged(peers: Any, recorder: Any) -> None:
    async with peers.over_tcp(recorder) as connection:
        await connection.interrupt(CancelJobs((JOB,)))
        assert recorder.interrupts == [CancelJobs((JOB,))]


async def test_connection_goes_on_when_a_hook_of_the_service_breaks(
    peers: Any, recorder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.on_interrupt = lambda connection, message: 1 / 0
    recorder.add({GetStatus: answer_status})
    async with peers.over_tcp(recorder) as connection:
        await connection.interrupt(CancelJobs((JOB,)))
        assert (await connection.call(GetStatus())).message == STATUS
    assert [r.message for r in caplog.records].count("hook_failed") == 1


# ---- the end of the connection ----


async def test_call_is_lost_with_outcome_maybe_when_the_peer_vanishes(
    peers: Any, recorder: Any
) -> None:
    gate = Gate()
    recorder.add({GetStatus: gate.handle})
    async with peers.over_tcp(recorder) as connection:
        call = asyncio.ensure_future(connection.call(GetStatus()))
        await gate.entered.wait()
        recorder.connected[0].abort()
        with pytest.raises(RequestLost) as raised:
            await call
        assert raised.value.outcome is Outcome.MAYBE
        assert raised.value.code is ErrorCode.TRUNCATED
        await gate.cancelled.wait()
        with pytest.raises(ConnectionLost):
            await connection.call(GetStatus())


async def test_call_is_lost_with_outcome_not_started_when_no_byte_of_it_can_have_left(
    peers: Any, recorder: Any
) -> None:
    async with peers.in_memory(recorder) as (connection, _):
        connection.pause_writing()  # as the transport does when the peer does not read
        call = asyncio.ensure_future(connection.call(GetStatus()))
        await asyncio.sleep(0)
        connection.connection_lost(None)
        with pytest.raises(RequestLost) as raised:
            await call
        assert raised.value.outcome is Outcome.NOT_STARTED


async def test_call_and_body_are_lost_with_the_peers_reason_when_it_closes(
    peers: Any, recorder: Any
) -> None:
    gate = Gate()
    recorder.add({GetStatus: gate.handle})
    async with peers.over_tcp(recorder) as connection:
        call = asyncio.ensure_future(connection.call(GetStatus()))
        await gate.entered.wait()
        await recorder.connected[0].close(ErrorCode.REVOKED, "the account was revoked")
        with pytest.raises(RequestLost, match="the account was revoked") as raised:
            await call
        assert raised.value.code is ErrorCode.REVOKED


async def test_new_calls_are_refused_and_those_under_way_served_when_the_peer_goes_away(
    peers: Any, recorder: Any
) -> None:
    gate = Gate()
    recorder.add({PutBlob: gate.handle})
    async with peers.over_tcp(recorder) as connection:
        call = asyncio.ensure_future(connection.call(PUT))
        await gate.entered.wait()
        recorder.connected[0].go_away()
        while not connection.is_going_away:
            await asyncio.sleep(0)
        with pytest.raises(RequestFailed, match="dial again") as raised:
            await connection.call(GetStatus())
        assert raised.value.outcome is Outcome.NOT_STARTED
        await connection.interrupt(CancelJobs((JOB,)))  # may be what ends those under way
        gate.opened.set()
        assert (await call).message == Done()


async def test_call_that_crosses_the_peers_going_away_is_refused_as_not_started(
    peers: Any, recorder: Any
) -> None:
    recorder.add({GetStatus: answer_status})
    async with peers.in_memory(recorder) as (connection, accepted):
        accepted.go_away()
        with pytest.raises(RequestFailed) as raised:
            await connection.call(GetStatus())
        assert raised.value.code is ErrorCode.SHUTTING_DOWN
        assert raised.value.outcome is Outcome.NOT_STARTED
        assert raised.value.retryable


async def test_all_that_is_answered_arrives_when_a_slow_peer_is_drained(
    peers: Any, recorder: Any
) -> None:
    data = peers.chance.randbytes(200_000)

    async def give(request: Request) -> None:
        await request.reply(RESULT, data)

    recorder.add({GetResult: give})
    async with peers.in_memory(recorder, capacity=1000) as (connection, accepted):
        answer = await connection.call(GET)
        while accepted.has_work:  # the handler ends long before its last byte has left
            await asyncio.sleep(0)
        await accepted.drain()
        accepted.close_nowait()
        assert await answer.body.read(len(data)) == data


async def test_silent_peer_is_given_up_and_a_living_one_is_not(
    peers: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PING_AFTER_S", 0.1)
    monkeypatch.setattr(limits, "DEAD_AFTER_S", 0.5)
    monkeypatch.setattr(shell, "LINGER_S", 0.05)
    async with peers.in_memory(recorder) as (connection, accepted):
        await asyncio.sleep(0.8)
        assert connection.is_open  # both are quiet, and answer each other's pings
        accepted._transport.pause_reading()
        await connection.wait_closed()
        assert connection.error.code is ErrorCode.IDLE_TIMEOUT


async def test_interrupts_beyond_the_burst_follow_as_fast_as_is_allowed(
    peers: Any, recorder: Any
) -> None:
    async with peers.in_memory(recorder) as (connection, _):
        sent = [connection.interrupt(CancelJobs((JOB,))) for _ in range(70)]
        began = connection.loop.time()
        await asyncio.gather(*sent)
        assert len(recorder.interrupts) == 70
        assert 0.1 < connection.loop.time() - began < 5  # 64 at once, 50 a second then


async def test_interrupt_raises_when_the_connection_ends_first(peers: Any, recorder: Any) -> None:
    async with peers.in_memory(recorder) as (connection, accepted):
        waiting = asyncio.ensure_future(connection.interrupt(CancelJobs((JOB,))))
        await asyncio.sleep(0)
        accepted.abort()
        with pytest.raises(ConnectionLost):
            await waiting


def test_connection_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError):
        Connection(None, None)  # type: ignore[arg-type]
