"""Frames between the daemon and a worker, and a job's output: descriptors on the event loop.

Read and written directly on readiness, without asyncio's transports: a call's two messages then
cost one system call each.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from struct import Struct

from alpyne_proto import codec, limits
from alpyne_proto.errors import CodecError, FrameError
from alpyne_proto.frame import Flags, Frame, FrameReader, FrameType, pack
from alpyne_proto.registry import Message

READ_SIZE = 128 * 1024
QUEUED_MAX = 1 << 20  # bytes after which a sender of bulk waits
DRAIN_READS = 64  # a pipe holds 64 KiB; more than this comes from a process that is still writing
_OFFSET = Struct(">Q")
Piece = bytes | memoryview
# Shared by all links: a reader copies what it is fed at once. A new buffer for each read would cost
# more than all the rest of a small one: so much the allocator gets from the kernel and gives back.
_RECEIVED = memoryview(bytearray(READ_SIZE))


class FrameLink:
    """One socket pair's end: frames in through a callback, frames out without blocking."""

    def __init__(
        self,
        end: socket.socket,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """``on_lost`` is told once, when the other end has closed ("") or sent no frames (why)."""
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._out: deque[Piece] = deque()
        self._queued = 0
        self._drained: asyncio.Future[None] | None = None
        self._open = True
        self._reading = True
        self._loop.add_reader(end, self._readable)

    def send(self, data: Piece) -> None:
        """Send now what the socket takes, and the rest when it can take more."""
        if not self._open:
            return
        if not self._out:
            try:
                sent = self._end.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # reading will find out
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._end, self._writable)
        self._out.append(data)
        self._queued += len(data)

    async def drained(self) -> None:
        """Wait until less than QUEUED_MAX bytes wait to be sent."""
        while self._open and self._queued > QUEUED_MAX:
            self._drained = self._loop.create_future()
            await self._drained

    def pause(self) -> None:
        """Take no more frames until ``resume``; the sender then waits."""
        if self._open and self._reading:
            self._reading = False
            self._loop.remove_reader(self._end)

    def resume(self) -> None:
        """Take frames again."""
        if self._open and not self._reading:
            self._reading = True
            self._loop.add_reader(self._end, self._readable)

    def read_now(self) -> None:
        """Take all frames that have arrived, before the loop tells of them."""
        for _ in range(DRAIN_READS):
            if not self._open or not self._readable():
                return

    def close(self) -> None:
        """Close this end; ``on_lost`` is not told."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._end.close()
            self._wake()

    def _readable(self) -> bool:
        """Read once; say whether there may be more."""
        try:
            size = self._end.recv_into(_RECEIVED)
        except BlockingIOError:
            return False
        except OSError:
            size = 0
        if not size:
            self._lose("")
            return False
        try:
            for frame in self._reader.feed(_RECEIVED[:size]):
                self._on_frame(frame)
                if not self._open:
                    return False
        except (FrameError, CodecError) as error:
            self._lose(str(error))
            return False
        return True

    def _lose(self, why: str) -> None:
        if self._open:
            self.close()
            self._on_lost(why)

    def _writable(self) -> None:
        while self._out:
            data = self._out[0]
            try:
                sent = self._end.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._out.clear()
                self._queued = 0
                break
            self._queued -= sent
            if sent < len(data):
                self._out[0] = memoryview(data)[sent:]
                return
            self._out.popleft()
        self._loop.remove_writer(self._end)
        self._wake()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


class OutputPipe:
    """One of a worker's output pipes: its bytes go to a callback as they come."""

    def __init__(self, descriptor: int, on_data: Callable[[bytes], None]) -> None:
        """``descriptor``: the reading end, non-blocking; it is closed with the pipe."""
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._on_data = on_data
        self._open = True
        self._loop.add_reader(descriptor, self._readable)

    def read_now(self) -> None:
        """Take all that has been written by now."""
        for _ in range(DRAIN_READS):
            if not self._open or not self._readable():
                return

    def close(self) -> None:
        """Close the reading end."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _readable(self) -> bool:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self._on_data(data)
        return True


def framed(kind: FrameType, stream_id: int, message: Message, body: bytes = b"") -> Iterator[Piece]:
    """Yield the bytes of ``message`` and its body, in frames that a worker takes."""
    meta = _encoded(message)
    if len(body) <= limits.JOB_PAYLOAD_INLINE:
        yield pack(kind, Flags.END, stream_id, meta, len(body)) + body
        return
    yield pack(kind, Flags.NONE, stream_id, meta)
    view = memoryview(body)
    for at in range(0, len(view), limits.JOB_PAYLOAD_INLINE):
        piece = view[at : at + limits.JOB_PAYLOAD_INLINE]
        end = Flags.END if at + len(piece) == len(view) else Flags.NONE
        size = limits.DATA_OFFSET + len(piece)
        yield pack(FrameType.DATA, end, stream_id, b"", size) + _OFFSET.pack(at)
        yield piece


@lru_cache(maxsize=64)
def _encoded(message: Message) -> bytes:
    """Encode a message; the orders of a map's chunks, for instance, are all the same."""
    return codec.encode(message)
