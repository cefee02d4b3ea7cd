"""What strangers meet at a server: limits, timeouts, silence; and how a server ends."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from alpyne_grid.wire import DialFailed, Request, RequestLost, Server, ServerLimits

from alpyne_proto.errors import ConnectionLost, ErrorCode
from alpyne_proto.messages.access import GetStatus, NodeStatus
from alpyne_proto.messages.compute import GetResult, JobState, PutBlob, ResultFollows
from alpyne_proto.messages.control import Done
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.preface import Preface, PrefaceFlag
from alpyne_proto.registry import State

STATUS = NodeStatus(NodeKind.COMPUTE)
NO_PREFACE = ServerLimits(preface_timeout_s=0.05, handshake_timeout_s=60)
NO_HANDSHAKE = ServerLimits(preface_timeout_s=60, handshake_timeout_s=0.05)
LIMIT_S = 1.5  # less than what the protocol itself allows


def answer_status(request: Request) -> None:
    request.reply_nowait(STATUS)


@contextlib.asynccontextmanager
async def serving(
    peers: Any, service: Any, bounds: ServerLimits | None = None
) -> AsyncIterator[Server]:
    server = await peers.serve(service, bounds)
    try:
        yield server
    finally:
        await server.close(1.0)


class Stranger:
    """A raw TCP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def knock(cls, server: Server, data: bytes = b"") -> "Stranger":
        stranger = cls(*await asyncio.open_connection("127.0.0.1", server.port))
        stranger.writer.write(data)
        return stranger

    async def heard(self) -> bytes:
        """Return all that came until the server closed."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""
        finally:
            self.writer.close()


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_stranger_is_dropped_in_silence_when_no_preface_comes(
    peers: Any, recorder: Any
) -> None:
    async with serving(peers, recorder, NO_PREFACE) as server, asyncio.timeout(LIMIT_S):
        stranger = await Stranger.knock(server, b"ALPYNE")
        assert await stranger.heard() == b""
        assert server.half_open == 0
        assert recorder.connected == []


async def test_stranger_is_dropped_when_the_handshake_takes_too_long(
    peers: Any, recorder: Any
) -> None:
    async with serving(peers, recorder, NO_HANDSHAKE) as server, asyncio.timeout(LIMIT_S):
        stranger = await Stranger.knock(server, Preface().encode())
        assert await stranger.heard() == b""
        assert server.half_open == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        Preface().encode() + b"\x01\xff\xff\xff" + bytes(100),
        Preface().encode() + b"\x01\x00\x00\x30" + bytes(48),
        Preface().encode() + b"\x02\x00\x00\x30" + bytes(48),
    ],
)
async def test_next_good_request_is_served_when_garbage_came_before(
    peers: Any, recorder: Any, garbage: bytes
) -> None:
    recorder.add({GetStatus: answer_status})
    async with serving(peers, recorder) as server:
        for _ in range(20):
            stranger = await Stranger.knock(server, garbage)
            assert await stranger.heard() == b""
        connection = await peers.dial(server)
        assert (await connection.call(GetStatus())).message == STATUS
        await connection.close()


async def test_random_bytes_never_get_an_answer(peers: Any, recorder: Any) -> None:
    async with serving(peers, recorder) as server:
        for size in (1, 11, 12, 13, 100, 5000):
            stranger = await Stranger.knock(server, peers.chance.randbytes(size))
            with contextlib.suppress(OSError):  # the server may have reset it already
                stranger.writer.write_eof()
            assert await stranger.heard() == b""
        await until(lambda: server.half_open == 0)
        assert recorder.connected == []


async def test_other_version_is_answered_with_our_preface(peers: Any, recorder: Any) -> None:
    async with serving(peers, recorder) as server:
        stranger = await Stranger.knock(server, Preface(version=9).encode())
        assert await stranger.heard() == Preface().encode()


async def test_ninth_half_open_connection_of_a_source_is_told_busy(
    peers: Any, recorder: Any
) -> None:
    recorder.add({GetStatus: answer_status})
    async with serving(peers, recorder) as server:
        waiting = [await Stranger.knock(server, Preface().encode()) for _ in range(8)]
        await until(lambda: server.half_open == 8)
        refused = await Stranger.knock(server, Preface().encode() + bytes(52))
        assert await refused.heard() == Preface(flags=PrefaceFlag.BUSY).encode()
        assert server.half_open == 8
        waiting.pop().writer.close()
        connection = await peers.dial(server)  # takes the place that has become free
        assert (await connection.call(GetStatus())).message == STATUS
        for stranger in waiting:
            stranger.writer.close()
        await connection.close()


async def test_dialler_tries_again_until_a_busy_server_has_a_place(
    peers: Any, recorder: Any
) -> None:
    bounds = ServerLimits(half_open_per_source=1, preface_timeout_s=0.3)
    async with serving(peers, recorder, bounds) as server:
        stranger = await Stranger.knock(server)
        await until(lambda: server.half_open == 1)
        connection = await peers.dial(server)
        assert connection.state is State.OPEN
        await connection.close()
        await stranger.heard()


async def test_refused_strangers_that_say_nothing_are_dropped_too(
    peers: Any, recorder: Any
) -> None:
    bounds = ServerLimits(half_open_max=1, preface_timeout_s=0.05, handshake_timeout_s=0.05)
    async with serving(peers, recorder, bounds) as server:
        strangers = [await Stranger.knock(server) for _ in range(100)]
        assert [await stranger.heard() for stranger in strangers] == [b""] * 100


async def test_peer_that_never_gets_a_state_is_dropped(peers: Any, recorder: Any) -> None:
    recorder.on_connect = lambda connection: None  # forgets to promote
    async with serving(peers, recorder) as server:
        with pytest.raises(Exception, match="no answer in time"):
            await peers.dial(server, timeout_s=0.1)


async def test_half_open_connections_are_bounded_over_all_sources_too(
    peers: Any, recorder: Any
) -> None:
    bounds = ServerLimits(half_open_max=3)
    async with serving(peers, recorder, bounds) as server:
        waiting = [await Stranger.knock(server, Preface().encode()) for _ in range(3)]
        await until(lambda: server.half_open == 3)
        refused = await Stranger.knock(server, Preface().encode())
        assert await refused.heard() == Preface(flags=PrefaceFlag.BUSY).encode()
        for stranger in waiting:
            stranger.writer.close()


async def test_peer_that_stays_unknown_is_closed_after_its_time(peers: Any, recorder: Any) -> None:
    recorder.state = State.UNKNOWN
    async with serving(peers, recorder, ServerLimits(unknown_timeout_s=0.05)) as server:
        connection = await peers.dial(server)
        await connection.wait_closed()
        assert connection.error.code is ErrorCode.NOT_PERMITTED
        recorder.state = State.OPEN
        connection = await peers.dial(server)
        await asyncio.sleep(0.08)
        assert connection.is_open
        await connection.close()


async def test_peers_that_stay_unknown_are_bounded_and_known_ones_do_not_count(
    peers: Any, recorder: Any
) -> None:
    async with serving(peers, recorder, ServerLimits(unknown_max=2)) as server:
        known = [await peers.dial(server) for _ in range(4)]
        recorder.state = State.UNKNOWN
        unknown = [await peers.dial(server) for _ in range(2)]
        with pytest.raises((DialFailed, ConnectionLost), match="too many peers without an account"):
            crowd = await peers.dial(server, timeout_s=0.3)
            await crowd.wait_closed()
            await crowd.wait_ready()
        assert all(connection.is_open for connection in (*known, *unknown))
        for connection in (*known, *unknown):
            await connection.close()


async def test_peers_that_stay_unknown_keep_no_account_out(peers: Any, recorder: Any) -> None:
    async with serving(peers, recorder, ServerLimits(unknown_max=2)) as server:
        recorder.state = State.UNKNOWN
        unknown = [await peers.dial(server) for _ in range(2)]
        recorder.state = State.OPEN
        known = [await peers.dial(server, timeout_s=1.0) for _ in range(3)]
        assert all(connection.is_open for connection in (*known, *unknown))
        for connection in (*known, *unknown):
            await connection.close()


async def test_peers_that_stay_unknown_are_bounded_for_each_source(
    peers: Any, recorder: Any
) -> None:
    recorder.state = State.UNKNOWN
    async with serving(peers, recorder, ServerLimits(unknown_per_source=2)) as server:
        unknown = [await peers.dial(server) for _ in range(2)]
        with pytest.raises((DialFailed, ConnectionLost), match="too many peers without an account"):
            crowd = await peers.dial(server, timeout_s=0.3)
            await crowd.wait_closed()
            await crowd.wait_ready()
        assert all(connection.is_open for connection in unknown)
        for connection in unknown:
            await connection.close()


async def test_server_that_is_full_says_busy(peers: Any, recorder: Any) -> None:
    async with serving(peers, recorder, ServerLimits(connections_max=1)) as server:
        connection = await peers.dial(server)
        with pytest.raises(DialFailed, match="busy") as raised:
            await peers.dial(server, timeout_s=0.3)
        assert raised.value.code is ErrorCode.TOO_BUSY
        await connection.close()


async def test_failures_of_strangers_do_not_fill_the_log(
    peers: Any, recorder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "alpyne")
    async with serving(peers, recorder) as server:
        for _ in range(50):
            await (await Stranger.knock(server, b"GET / HTTP/1.0\r\n")).heard()
        await until(lambda: server.half_open == 0)
    events = [record.message for record in caplog.records]
    assert events.count("handshake_failed") == 20
    assert events.count("more_strangers_failed") == 1


# ---- the end of a server ----


async def test_server_lets_a_request_end_and_refuses_new_connections_when_it_closes(
    peers: Any, recorder: Any
) -> None:
    entered, opened = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> None:
        entered.set()
        await opened.wait()
        request.reply_nowait(Done())

    recorder.add({PutBlob: handle})
    server = await peers.serve(recorder)
    port = server.port
    connection = await peers.dial(server)
    call = asyncio.ensure_future(connection.call(PutBlob(bytes(32), 0)))
    await entered.wait()
    closing = asyncio.ensure_future(server.close(5.0))
    await until(lambda: connection.is_going_away)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    opened.set()
    assert (await call).message == Done()
    await closing
    await connection.wait_closed()
    assert connection.error is not None
    assert connection.error.code is ErrorCode.SHUTTING_DOWN
    assert server.connections == set()


async def test_server_sends_all_of_an_answer_before_it_closes(peers: Any, recorder: Any) -> None:
    data = os.urandom(3_000_000)

    async def give(request: Request) -> None:
        await request.reply(ResultFollows(JobState.DONE, 1, 1, 0, bytes(32)), data)

    recorder.add({GetResult: give})
    server = await peers.serve(recorder)
    connection = await peers.dial(server)
    answer = await connection.call(GetResult(bytes(16)))
    closing = asyncio.ensure_future(server.close(5.0))
    assert await answer.body.read(len(data)) == data
    await closing
    await connection.wait_closed()


async def test_server_ends_a_request_that_does_not_end_within_the_grace(
    peers: Any, recorder: Any
) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    recorder.add({GetStatus: handle})
    server = await peers.serve(recorder)
    connection = await peers.dial(server)
    call = asyncio.ensure_future(connection.call(GetStatus()))
    await entered.wait()
    await server.close(0.05)
    await cancelled.wait()
    with pytest.raises(RequestLost, match="the node is ending"):
        await call
