"""Redialler: up, down, backoff; with its own sleep, so that no time passes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from alpyne_grid.wire import Backoff, Connection, Redialler
from alpyne_grid.wire.dial import DialFailed

from alpyne_proto.errors import AlpyneError


class Sleeps:
    """Keeps how long was to be slept, and returns at once, or when the test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.gate: asyncio.Event | None = None

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)


class Story:
    """What a redialler told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.connections: list[Connection] = []

    def up(self, connection: Connection) -> None:
        self.told.append("up")
        self.connections.append(connection)

    def down(self, connection: Connection) -> None:
        self.told.append("down")

    def failure(self, error: AlpyneError) -> None:
        self.told.append("failure")


def redialler(
    dial: Callable[[], Awaitable[Connection]], story: Story, sleeps: Sleeps, **more: Any
) -> Redialler:
    return Redialler(
        dial, on_up=story.up, on_down=story.down, on_failure=story.failure,
        random=lambda: 1.0, sleep=sleeps.sleep, **more,
    )  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_backoff_doubles_up_to_its_most_and_takes_a_random_part() -> None:
    backoff = Backoff(0.1, 5.0)
    assert [backoff.delay_s(n, 1.0) for n in range(1, 9)] == [
        0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0,
    ]  # fmt: skip
    assert backoff.delay_s(4, 0.25) == pytest.approx(0.2)
    assert backoff.delay_s(10_000, 0.0) == 0.0


async def test_redialler_dials_again_when_the_connection_is_lost(peers: Any, recorder: Any) -> None:
    server = await peers.serve(recorder)
    story = Story()
    keeping = redialler(lambda: peers.dial(server), story, Sleeps())
    keeping.start()
    first = await keeping.connected()
    assert keeping.connection is first
    recorder.connected[0].abort()
    await until(lambda: len(story.connections) == 2)
    second = await keeping.connected()
    assert second is not first
    assert second.is_open
    await keeping.close()
    assert story.told == ["up", "down", "up", "down"]
    assert not second.is_open
    await server.close()


async def test_redialler_waits_longer_after_each_failure_and_starts_anew_after_success(
    peers: Any, recorder: Any
) -> None:
    server = await peers.serve(recorder)
    failures = 4

    async def dial() -> Connection:
        nonlocal failures
        if failures:
            failures -= 1
            raise DialFailed("no route")
        connection: Connection = await peers.dial(server)
        return connection

    story, sleeps = Story(), Sleeps()
    keeping = redialler(dial, story, sleeps)
    keeping.start()
    await keeping.connected()
    assert sleeps.asked == [0.1, 0.2, 0.4, 0.8]
    assert story.told == ["failure"] * 4 + ["up"]
    await keeping.close()
    await server.close()


async def test_redialler_waits_longer_each_time_when_connections_end_at_once(
    peers: Any, recorder: Any
) -> None:
    server = await peers.serve(recorder)
    story, sleeps = Story(), Sleeps()
    keeping = redialler(lambda: peers.dial(server), story, sleeps)
    keeping.start()
    for count in range(1, 5):
        await until(lambda count=count: len(recorder.connected) == count)
        await until(lambda count=count: story.told.count("up") == count)
        recorder.connected[-1].abort()
    await until(lambda: len(sleeps.asked) == 4)
    assert sleeps.asked == [0.1, 0.2, 0.4, 0.8]
    assert story.told == ["up", "down"] * 4
    await keeping.close()
    await server.close()


async def test_redialler_goes_on_when_dialling_or_a_callback_breaks(
    peers: Any, recorder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = await peers.serve(recorder)
    broken = [ZeroDivisionError(), KeyError("x")]

    async def dial() -> Connection:
        if broken:
            raise broken.pop()
        connection: Connection = await peers.dial(server)
        return connection

    def fail(connection: Connection) -> None:
        raise ValueError

    keeping = Redialler(dial, on_up=fail, on_down=fail, sleep=Sleeps().sleep)
    keeping.start()
    first = await keeping.connected()
    recorder.connected[0].abort()
    await first.wait_closed()
    assert await keeping.connected() is not first
    await keeping.close()
    await server.close()
    events = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert events == ["dial_failed"] * 2 + ["callback_failed"] * 4


async def test_connected_raises_what_the_last_attempt_failed_of_when_time_is_up() -> None:
    async def dial() -> Connection:
        raise DialFailed("the node is off")

    sleeps = Sleeps()
    sleeps.gate = asyncio.Event()
    keeping = redialler(dial, Story(), sleeps)
    keeping.start()
    with pytest.raises(DialFailed, match="the node is off"):
        await keeping.connected(0.02)
    await keeping.close()


async def test_dial_now_ends_the_wait_between_attempts() -> None:
    attempts = 0

    async def dial() -> Connection:
        nonlocal attempts
        attempts += 1
        raise DialFailed("no route")

    sleeps = Sleeps()
    sleeps.gate = asyncio.Event()
    keeping = redialler(dial, Story(), sleeps)
    keeping.start()
    await until(lambda: len(sleeps.asked) == 1)
    keeping.dial_now()
    await until(lambda: attempts == 2)
    await keeping.close()


async def test_close_ends_a_redialler_that_is_dialling() -> None:
    async def dial() -> Connection:
        await asyncio.Event().wait()
        raise AssertionError

    keeping = redialler(dial, Story(), Sleeps())
    keeping.start()
    await asyncio.sleep(0)
    await keeping.close()
    await keeping.close()
