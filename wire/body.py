"""BodyReader: the bytes of a request or answer as they arrive, with backpressure.

Credit goes back to the sender when bytes are handed to the caller, so a reader that does not read
bounds what its peer can send: the stream's window, whatever the size of the body.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol, Self

from alpyne_proto.codec import RowReader
from alpyne_proto.errors import (
    CodecError,
    ErrorCode,
    LocalProtocolError,
    Outcome,
    RequestFailed,
)
from alpyne_proto.registry import Message

Data = bytes | bytearray | memoryview

_SMALL = 16 * 1024  # smaller pieces are copied together: a view of one may keep a whole record
_MERGED_MAX = 64 * 1024
_PAY_MIN = 4 * 1024  # of a window of a MiB: to count each small piece takes longer than to pour it


class Sink(Protocol):
    """What `BodyReader.pour` pours into; FileSink is one."""

    def feed(self, data: Data) -> bool:
        """Take bytes, and return whether there is room for more."""
        ...

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when there is room again."""
        ...


class Inflow(Protocol):
    """What a reader needs of its connection."""

    def give_credit(self, stream_id: int, size: int) -> None:
        """Tell the session that bytes were consumed."""
        ...

    def stop_stream(self, stream_id: int, code: ErrorCode, text: str) -> None:
        """Ask the peer to send no more."""
        ...


class BodyReader:
    """One body, to be read once: by iteration, `read`, `rows` or `pour`.

    A body that is not read to its end must be cancelled, or it keeps its part of the connection's
    window until the connection ends.
    """

    __slots__ = (
        "_chunks",
        "_ended",
        "_error",
        "_inflow",
        "_owed",
        "_rows",
        "_sink",
        "_sink_error",
        "_stream_id",
        "_waiter",
        "received",
        "trailer",
    )

    def __init__(self, inflow: Inflow, stream_id: int, rows: tuple[int, ...] = ()) -> None:
        self._inflow = inflow
        self._stream_id = stream_id
        self._rows = rows
        self._chunks: deque[Data] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._sink_error: Exception | None = None
        self._owed = 0  # bytes in a full sink, whose credit goes back when it has room
        self.received = 0  # bytes that have arrived
        self.trailer: Message | None = None  # what came with the end, for instance BodyDigest

    @property
    def has_ended(self) -> bool:
        """Whether all of the body has arrived; it may still wait to be read."""
        return self._ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes | memoryview:
        """Return the next bytes, in pieces of any size; they may be kept.

        Raises ConnectionLost, or RequestFailed where the peer gave up, once the bytes that had
        come before are read.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._more()
        chunk = self._chunks.popleft()
        self._inflow.give_credit(self._stream_id, len(chunk))
        return bytes(chunk) if isinstance(chunk, bytearray) else chunk

    def take(self) -> bytes:
        """Return all bytes that have come and were not read yet; b"" for none. Never waits."""
        parts = list(self._chunks)
        self._drop()
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        """Return the whole body.

        max_bytes: a longer body is cancelled and raises RequestFailed BAD_REQUEST.
        """
        parts: list[Data] = []
        async for chunk in self:
            parts.append(chunk)
            if self.received > max_bytes:
                self.cancel()
                raise RequestFailed(
                    ErrorCode.BAD_REQUEST,
                    f"body: expected at most {max_bytes} bytes, got more",
                    outcome=Outcome.MAYBE,
                )
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    async def rows(self, *kinds: type[Message] | int) -> AsyncIterator[tuple[Message, bytes]]:
        """Yield (row, payload) of a body of rows as they arrive.

        kinds: classes or codes of the rows that are legal; none given: those that the registry
        declares for this body. A bad or truncated row cancels the body and raises CodecError.
        """
        codes = tuple(kind if isinstance(kind, int) else kind.SPEC.code for kind in kinds)
        reader = RowReader(codes or self._rows)
        try:
            async for chunk in self:
                for row in reader.feed(chunk):
                    yield row
            reader.finish()
        except CodecError:
            self.cancel(ErrorCode.CODEC_ERROR)
            raise

    async def pour(self, sink: Sink) -> None:
        """Hand each piece to `sink` as it arrives, and return when the body has ended.

        It costs no task switch per piece. While the sink is full the sender gets no credit. What
        the sink raises cancels the body and is raised here; the sink is not finished by it.
        """
        if self._sink is not None:
            raise LocalProtocolError("body: it is poured already; a body can be read once")
        self._sink = sink
        try:
            while self._chunks:
                self._feed(sink, self._chunks.popleft())
            while not self._ended and self._error is None and self._sink_error is None:
                await self._more()
            if self._sink_error is not None:
                raise self._sink_error
            if self._error is not None:
                raise self._error
        except BaseException:
            self._sink = None
            self._pay()
            self.cancel()
            raise
        self._sink = None
        self._pay()

    def cancel(self, code: ErrorCode = ErrorCode.CANCELLED, text: str = "") -> None:
        """Drop what has come and ask the peer to send no more; reading it again raises."""
        self._drop()
        if not self._ended and self._error is None:
            self._error = RequestFailed(
                ErrorCode.CANCELLED, "body: it was cancelled here", outcome=Outcome.MAYBE
            )
            self._inflow.stop_stream(self._stream_id, code, text)
            self._wake()

    # ---- from the connection ----

    def push(self, data: Data, *, end: bool, trailer: Message | None = None) -> None:
        """Take what arrived."""
        size = len(data)
        self.received += size
        if end:
            self._ended = True
            self.trailer = trailer
        if size:
            if self._error is not None or self._sink_error is not None:
                self._inflow.give_credit(self._stream_id, size)
            elif self._sink is not None:
                self._push_into(self._sink, data)
            else:
                self._keep(data, size)
        if end or self._sink is None:
            self._wake()

    def fail(self, error: Exception) -> None:
        """The body ends here, unfinished; what has come can still be read."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    # ---- private ----

    def _keep(self, data: Data, size: int) -> None:
        chunks = self._chunks
        if size >= _SMALL:
            chunks.append(data)
            return
        tail = chunks[-1] if chunks else None
        if type(tail) is bytearray and len(tail) < _MERGED_MAX:
            tail += data
        else:
            chunks.append(bytearray(data))

    def _push_into(self, sink: Sink, data: Data) -> None:
        try:
            self._feed(sink, data)
        except Exception as error:  # noqa: BLE001 - it is raised by `pour`, not by the connection
            self._sink = None
            self._sink_error = error
            self._wake()

    def _feed(self, sink: Sink, data: Data) -> None:
        self._owed += len(data)
        if sink.feed(data):
            if self._owed >= _PAY_MIN:
                self._pay()
        else:
            sink.when_room(self._pay)

    def _pay(self) -> None:
        owed, self._owed = self._owed, 0
        if owed:
            self._inflow.give_credit(self._stream_id, owed)

    def _drop(self) -> None:
        dropped = sum(len(chunk) for chunk in self._chunks)
        self._chunks.clear()
        if dropped:
            self._inflow.give_credit(self._stream_id, dropped)

    async def _more(self) -> None:
        if self._waiter is not None:
            raise LocalProtocolError("body: two readers at once; a body has one")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
