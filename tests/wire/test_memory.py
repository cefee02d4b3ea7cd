"""The transports in memory keep asyncio's contract, so that tests over them mean something."""

import asyncio

import pytest
from alpyne_grid.wire import memory_pair


class Protocol(asyncio.Protocol):
    def __init__(self) -> None:
        self.told: list[str] = []
        self.data = bytearray()
        self.answer_eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.answer_eof

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_bytes_arrive_in_order_in_both_directions() -> None:
    left, right = memory_pair(capacity=100)
    here, there = Protocol(), Protocol()
    left.start(here)
    left.write(b"early ")
    right.start(there)
    left.write(bytearray(range(250)))
    right.write(memoryview(b"back"))
    await turns()
    assert bytes(there.data) == b"early " + bytes(range(250))
    assert bytes(here.data) == b"back"


async def test_writer_is_paused_while_the_reader_is_and_resumed_after_it() -> None:
    left, right = memory_pair(capacity=100)
    here, there = Protocol(), Protocol()
    left.start(here)
    right.start(there)
    left.set_write_buffer_limits(high=0)
    right.pause_reading()
    left.write(bytes(100))
    assert here.told == ["made"]
    left.write(b"x")
    assert here.told == ["made", "pause"]
    await turns()
    assert there.data == b""
    right.resume_reading()
    await turns()
    assert here.told == ["made", "pause", "resume"]
    assert len(there.data) == 101


async def test_close_hands_over_what_was_written() -> None:
    left, right = memory_pair(capacity=10)
    here, there = Protocol(), Protocol()
    left.start(here)
    right.start(there)
    left.write(bytes(1000))
    left.close()
    await turns(300)
    assert len(there.data) == 1000
    assert there.told == ["made", "eof", "lost"]
    assert here.told[-1] == "lost"


async def test_abort_drops_what_was_written() -> None:
    left, right = memory_pair(capacity=10)
    here, there = Protocol(), Protocol()
    left.start(here)
    right.start(there)
    left.write(bytes(1000))
    left.abort()
    await turns()
    assert len(there.data) == 0
    assert there.told == ["made", "eof", "lost"]
    assert here.told.count("lost") == 1


@pytest.mark.parametrize("keeps_open", [False, True])
async def test_eof_closes_the_other_end_unless_it_wants_to_write_on(keeps_open: bool) -> None:
    left, right = memory_pair()
    here, there = Protocol(), Protocol()
    there.answer_eof = keeps_open
    left.start(here)
    right.start(there)
    left.write_eof()
    await turns()
    assert right.is_closing() is not keeps_open
    if keeps_open:
        right.write(b"still")
        await turns()
        assert bytes(here.data) == b"still"
        right.close()
        await turns()
