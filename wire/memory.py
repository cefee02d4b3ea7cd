"""Two asyncio transports joined in memory: a connection without a socket.

They keep the contract that connections rely on: writes never block, the protocol is told to pause
when more is kept than the high-water mark, closing hands over what was written, aborting drops it.
"""

import asyncio
from typing import Any

CAPACITY = 128 * 1024  # bytes under way, as a small kernel buffer would hold


def memory_pair(
    loop: asyncio.AbstractEventLoop | None = None, *, capacity: int = CAPACITY
) -> "tuple[MemoryTransport, MemoryTransport]":
    """Return two transports, each the other's peer, for `Server.attach` and `dial_transport`.

    loop: default the running one. capacity: bytes under way in one direction before a writer is
    told to pause.
    """
    loop = loop or asyncio.get_running_loop()
    left, right = MemoryTransport(loop, capacity), MemoryTransport(loop, capacity)
    left.peer, right.peer = right, left
    return left, right


class MemoryTransport(asyncio.Transport):
    """One end of a pair."""

    peer: "MemoryTransport"

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int) -> None:
        super().__init__()
        self._loop = loop
        self._capacity = capacity
        self._protocol: asyncio.BaseProtocol | None = None
        self._unsent = bytearray()
        self._under_way = bytearray()
        self._high = 64 * 1024
        self._reading = True
        self._writer_paused = False
        self._move_scheduled = False
        self._eof = False
        self._eof_sent = False
        self._closing = False
        self._lost = False

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        """Set the protocol and tell it that the connection is made."""
        self.set_protocol(protocol)
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self.peer._schedule_move()

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None, "start() gives the transport its protocol"
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.peer._schedule_move()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._lost or self._closing or self._eof:
            return
        self._unsent += data
        self._fill()
        if len(self._unsent) > self._high and not self._writer_paused:
            self._writer_paused = True
            self.get_protocol().pause_writing()

    def write_eof(self) -> None:
        self._eof = True
        self._schedule_move()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._eof = True
            self._schedule_move()
            if not self._unsent and not self._under_way:
                self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._closing = True
        self._unsent.clear()
        self._under_way.clear()
        self._eof = True
        self._loop.call_soon(self._lose, None)
        self._schedule_move()

    def _fill(self) -> None:
        """Move what fits from our own buffer to under way."""
        count = min(self._capacity - len(self._under_way), len(self._unsent))
        if count > 0:
            self._under_way += self._unsent[:count]
            del self._unsent[:count]
        self._schedule_move()

    def _schedule_move(self) -> None:
        if not self._move_scheduled:
            self._move_scheduled = True
            self._loop.call_soon(self._move)

    def _move(self) -> None:
        """Hand over what is under way, as the peer's protocol takes it."""
        self._move_scheduled = False
        peer = self.peer
        if peer._protocol is None or not peer._reading:
            return
        if self._under_way:
            data = bytes(self._under_way)
            self._under_way.clear()
            if not peer._lost and not peer._closing:
                _deliver(peer._protocol, data)
            self._fill()
            if not self._unsent and self._writer_paused and not self._lost:
                self._writer_paused = False
                self.get_protocol().resume_writing()
        elif self._eof and not self._eof_sent:
            self._eof_sent = True
            self._hand_over_eof()
        if self._under_way or (self._eof and not self._eof_sent):
            self._schedule_move()

    def _hand_over_eof(self) -> None:
        peer = self.peer
        if self._closing:
            self._loop.call_soon(self._lose, None)
        if peer._lost or peer._closing:
            return
        protocol = peer.get_protocol()
        assert isinstance(protocol, (asyncio.Protocol, asyncio.BufferedProtocol))
        if not protocol.eof_received():
            peer.close()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            if self._protocol is not None:
                self._protocol.connection_lost(error)


def _deliver(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    if isinstance(protocol, asyncio.BufferedProtocol):
        view = memoryview(data)
        while view:
            buffer = protocol.get_buffer(len(view))
            target = memoryview(buffer)
            count = min(len(target), len(view))
            target[:count] = view[:count]
            protocol.buffer_updated(count)
            view = view[count:]
    else:
        assert isinstance(protocol, asyncio.Protocol)
        protocol.data_received(data)
