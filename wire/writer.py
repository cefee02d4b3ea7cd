"""BodyWriter: the bytes of a request or answer on their way out, with backpressure.

The session takes bytes as credit and its own small queue allow; the rest of a write waits here, and
the connection moves it on whenever the session has room, without a task switch per record.
"""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeGuard

from alpyne_proto.errors import ErrorCode, LocalProtocolError, Outcome, RequestFailed
from alpyne_proto.registry import Message

if TYPE_CHECKING:
    from alpyne_grid.wire.connection import Connection

Data = bytes | bytearray | memoryview
Body = Data | Iterable[Data] | AsyncIterable[Data]
Trailer = Callable[[], Message]

INLINE_MAX: Final = 48 * 1024  # a body up to this travels in the frame of its request or answer


def is_small(body: Body) -> TypeGuard[Data]:
    """Whether a body is there as bytes that fit into the frame of its request or answer."""
    return isinstance(body, (bytes, bytearray, memoryview)) and len(body) <= INLINE_MAX


class BodyWriter:
    """Our side of one stream, from the first byte of its body to the end.

    One writer at a time: `write` returns when all of its bytes are the session's.
    """

    def __init__(self, connection: "Connection", stream_id: int) -> None:
        self.stream_id = stream_id
        self._connection = connection
        self._waiting = memoryview(b"")  # what the session has not taken yet
        self._ends = False  # nothing follows what waits
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._when_ended: Callable[[], None] | None = None
        self.has_ended = False  # the end, or a reset, is the session's

    @property
    def room(self) -> int:
        """Bytes that `try_write` would take now; 0 while an earlier write waits, and at the end."""
        if self._waiting or self.has_ended:
            return 0
        return self._connection.session.send_room(self.stream_id)

    def try_write(self, data: Data) -> bool:
        """Write all of `data`, which must not change any more, or nothing; return which.

        Raises what ended the stream: ConnectionLost, or RequestFailed where the peer stopped it.
        """
        self._check()
        if self.room < len(data):
            return False
        self._connection.session.send_data(self.stream_id, memoryview(data))
        self._connection.schedule_flush()
        return True

    async def write(self, data: Data) -> None:
        """Write `data`, which must not change any more; return when all of it is the session's.

        Raises what ended the stream: ConnectionLost, or RequestFailed where the peer stopped it.
        """
        self._check()
        self._waiting = memoryview(data).cast("B")
        self.pump()
        self._connection.schedule_flush()
        if self._waiting:
            await self._pumped()

    def start(self, data: Data) -> None:
        """Write all of `data`, which must not change any more, and end the body; wait for nothing.

        What the session has no room for now follows as it has. Raises as `write` does.
        """
        self._check()
        self._ends = True
        self._waiting = memoryview(data).cast("B")
        self.pump()
        self._connection.schedule_flush()

    async def writable(self) -> None:
        """Return when `room` is more than 0; raises as `write` does."""
        self._check()
        while self.room <= 0:
            self._connection.blocked[self.stream_id] = self
            await self._pumped()

    async def end(self, trailer: Message | None = None) -> None:
        """End the body, with a trailer where the message's body has one."""
        self.end_nowait(trailer)

    def end_nowait(self, trailer: Message | None = None) -> None:
        """End the body behind what was written; see `end`."""
        self._check()
        self._connection.session.send_data(self.stream_id, b"", end=True, trailer=trailer)
        self._connection.schedule_flush()
        self._ended()

    def reset(self, code: ErrorCode = ErrorCode.CANCELLED, text: str = "") -> None:
        """Give the body up: the peer is told that it will not be finished."""
        if not self.has_ended:
            if self._connection.is_open:
                self._connection.session.reset(self.stream_id, code, text)
                self._connection.schedule_flush()
            why = text or "the rest of the body was given up here"
            self.fail(RequestFailed(code, why, outcome=Outcome.MAYBE))

    # ---- from the connection ----

    def pump(self) -> None:
        """Move what waits to the session, as it has room; wake the writer when all is moved."""
        session, stream_id = self._connection.session, self.stream_id
        while self._waiting:
            room = session.send_room(stream_id)
            if room <= 0:
                self._connection.blocked[stream_id] = self
                return
            session.send_data(stream_id, self._waiting[:room])
            self._waiting = self._waiting[room:]
        self._connection.blocked.pop(stream_id, None)
        if self._ends and not self.has_ended:
            session.send_data(stream_id, b"", end=True)
            self._ended()
        self._wake()

    def fail(self, error: Exception) -> None:
        """The stream cannot be written any more; a write that waits raises `error`."""
        if not self.has_ended:
            self._error = error
            self._waiting = memoryview(b"")
            self._ended()
            self._wake()

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the end, or a reset, is the session's; at once if it is already."""
        if self.has_ended:
            callback()
        else:
            self._when_ended = callback

    # ---- private ----

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.has_ended or self._ends:
            raise LocalProtocolError("stream: its body has ended; nothing can follow")
        if self._waiting:
            raise LocalProtocolError("stream: an earlier write still waits; await it first")

    async def _pumped(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ended(self) -> None:
        self.has_ended = True
        self._connection.blocked.pop(self.stream_id, None)
        callback, self._when_ended = self._when_ended, None
        if callback is not None:
            callback()


async def write_body(writer: BodyWriter, body: Body, trailer: Trailer | None = None) -> None:
    """Write a whole body and end it; raises what its source raises, and what `write` raises.

    trailer: called when all of the body was taken from its source.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        if body:
            await writer.write(body)
    elif isinstance(body, AsyncIterable):
        async for piece in body:
            await writer.write(piece)
    else:
        for piece in body:
            await writer.write(piece)
    await writer.end(trailer() if trailer is not None else None)
