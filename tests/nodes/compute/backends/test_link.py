"""Frames and output on the event loop: any split, partial writes, backpressure, loss."""

import asyncio
import os
import socket
from contextlib import suppress

from alpyne_grid.nodes.compute.backends.link import QUEUED_MAX, FrameLink, OutputPipe, framed
from alpyne_grid.nodes.compute.worker.channel import DaemonChannel

from alpyne_proto.frame import Flags, Frame, FrameType, pack
from alpyne_proto.messages.compute import JobForm, JobState, ResultCodec
from alpyne_proto.messages.worker import JobRan, RunJob

ORDER = RunJob(JobForm.CALL, ResultCodec.PICKLE)


class Ends:
    """A link and the other end of its socket pair."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: list[str] = []
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.link = FrameLink(near, self.frames.append, self.lost.append)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.frames) + len(self.lost) < count:
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self.link.close()
        self.far.close()


async def test_link_gives_whole_frames_however_they_arrive() -> None:
    ends = Ends()
    data = pack(FrameType.DATA, Flags.END, 2, b"\x80", 5) + b"bytes"
    for at in range(len(data)):
        ends.far.send(data[at : at + 1])
        await asyncio.sleep(0)
    ends.far.send(data * 3)
    await ends.until(4)
    assert ends.frames == [Frame(FrameType.DATA, Flags.END, 2, b"\x80", b"bytes")] * 4
    ends.close()


async def test_link_is_lost_once_when_the_other_end_closes() -> None:
    ends = Ends()
    ends.far.close()
    await ends.until(1)
    ends.link.send(b"nobody hears")
    ends.link.close()
    assert ends.lost == [""]


async def test_link_is_lost_with_the_reason_when_lengths_are_too_large() -> None:
    ends = Ends()
    ends.far.send(b"\xff" * 100)
    await ends.until(1)
    assert "at most" in ends.lost[0]
    ends.close()


async def test_link_takes_nothing_while_it_is_paused() -> None:
    ends = Ends()
    ends.link.pause()
    ends.far.send(pack(FrameType.DATA, Flags.END, 2))
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert ends.frames == []
    ends.link.resume()
    await ends.until(1)
    ends.close()


async def test_worker_gets_a_large_body_whole_while_the_sender_waits_for_it() -> None:
    ends = Ends()
    body = os.urandom(5 << 20)
    channel = DaemonChannel(ends.far.fileno())
    taking = asyncio.create_task(asyncio.to_thread(channel.next_job))
    for piece in framed(FrameType.REQUEST, 1, ORDER, body):
        ends.link.send(piece)
        await ends.link.drained()
        assert ends.link._queued <= QUEUED_MAX
    assert await taking == (ORDER, 1, body)
    ends.close()


async def test_worker_sends_a_large_body_in_frames_that_the_daemon_takes() -> None:
    ends = Ends()
    body = os.urandom(300_000)
    channel = DaemonChannel(ends.far.fileno())
    pieces = [body[:100_000], memoryview(body)[100_000:]]
    await asyncio.to_thread(channel.respond, 1, JobRan(JobState.DONE), pieces, len(body))
    async with asyncio.timeout(5):
        while not ends.frames or not ends.frames[-1].flags & Flags.END:
            await asyncio.sleep(0.001)
    got = bytearray()
    for frame in ends.frames[1:]:
        assert frame.type == FrameType.DATA
        assert int.from_bytes(frame.payload[:8], "big") == len(got)
        got += frame.payload[8:]
    assert got == body
    ends.close()


async def test_sender_is_woken_when_the_link_is_lost() -> None:
    ends = Ends()
    ends.link.send(bytes(QUEUED_MAX * 2))
    waiting = asyncio.create_task(ends.link.drained())
    await asyncio.sleep(0)
    ends.far.close()
    async with asyncio.timeout(5):
        await waiting
    ends.close()


async def test_pipe_gives_what_is_written_and_closes_at_its_end() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    got: list[bytes] = []
    pipe = OutputPipe(reading, got.append)
    os.write(writing, b"one")
    pipe.read_now()
    assert got == [b"one"]
    os.write(writing, b"two")
    os.close(writing)
    async with asyncio.timeout(5):
        while pipe._open:
            await asyncio.sleep(0.001)
    pipe.close()
    assert b"".join(got) == b"onetwo"
    with suppress(OSError):
        os.fstat(reading)
        raise AssertionError("its descriptor is still open")
