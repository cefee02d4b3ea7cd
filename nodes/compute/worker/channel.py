"""The interpreter's end of the job's socket pair: blocking frames, one request at a time."""

import os
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from struct import Struct

from alpyne_proto import codec, limits
from alpyne_proto.errors import ConnectionLost, FrameError, LocalProtocolError
from alpyne_proto.frame import Flags, Frame, FrameReader, FrameType, pack
from alpyne_proto.messages.worker import RunJob
from alpyne_proto.registry import Message, Shape

FRAME_PAYLOAD_MAX = limits.JOB_PAYLOAD_INLINE + limits.META_MAX  # a whole inline program
READ_SIZE = 64 * 1024
_OFFSET = Struct(">Q")
_END = int(Flags.END)  # an int and a flag meet in five slow steps
Piece = bytes | bytearray | memoryview


class DaemonChannel:
    """Frames to and from the daemon.

    Only the interpreter's own process may use it: a forked child would read the answers of others.
    Requests of several threads follow one another under a lock.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._process = os.getpid()
        self._reader = FrameReader(FRAME_PAYLOAD_MAX)
        self._waiting: list[Frame] = []
        self._lock = threading.Lock()
        self._stream = 0

    def next_job(self) -> tuple[RunJob, int, bytes] | None:
        """Return the next order, its stream and its body; None when the daemon has gone."""
        frame = self._next_frame()
        if frame is None:
            return None
        if frame.type != FrameType.REQUEST:
            raise FrameError(f"worker: expected a REQUEST frame, got type {frame.type:#04x}")
        return _order(frame.meta), frame.stream_id, self._body(frame)

    def announce(self, message: Message) -> None:
        """Send a request that is not answered."""
        with self._lock:
            self._send(FrameType.REQUEST, self._next_stream(), message, (), 0)

    def respond(
        self, stream_id: int, message: Message, body: Iterable[Piece] = (), size: int = 0
    ) -> None:
        """Answer a request with ``message`` and a body of ``size`` bytes in any pieces."""
        with self._lock:
            self._send(FrameType.RESPONSE, stream_id, message, body, size)

    def ask(
        self, message: Message, body: Iterable[Piece] = (), size: int = 0
    ) -> tuple[Message, bytes]:
        """Send a request and return its answer with the whole body; ConnectionLost at EOF."""
        if os.getpid() != self._process:
            raise LocalProtocolError(
                "objects can be read and written only in the job's own process, not in one that it "
                "forked: read the object first and hand over its bytes"
            )
        with self._lock:
            stream_id = self._next_stream()
            self._send(FrameType.REQUEST, stream_id, message, body, size)
            frame = self._next_frame()
            if frame is None:
                raise ConnectionLost("the node ended while it served an object")
            if frame.type != FrameType.RESPONSE or frame.stream_id != stream_id:
                raise FrameError(f"worker: frame type {frame.type:#04x} instead of an answer")
            answer = codec.decode(frame.meta, (Shape.RESPONSE,), lenient=False)
            return answer, self._body(frame)

    def _next_stream(self) -> int:
        self._stream += 2
        return self._stream

    def _body(self, first: Frame) -> bytes:
        """Return the body that begins in ``first``: its payload and the DATA frames up to END."""
        if first.flags & _END:
            return bytes(first.payload)
        body = bytearray(first.payload)
        while True:
            frame = self._next_frame()
            if frame is None:
                raise ConnectionLost("the node ended inside a body")
            if frame.type != FrameType.DATA or frame.stream_id != first.stream_id:
                raise FrameError(f"worker: frame type {frame.type:#04x} inside a body")
            body += memoryview(frame.payload)[limits.DATA_OFFSET :]
            if frame.flags & _END:
                return bytes(body)

    def _next_frame(self) -> Frame | None:
        while not self._waiting:
            try:
                data = os.read(self._descriptor, READ_SIZE)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._waiting = list(self._reader.feed(data))
        return self._waiting.pop(0)

    def _send(
        self, kind: FrameType, stream_id: int, message: Message, body: Iterable[Piece], size: int
    ) -> None:
        meta = codec.encode(message)
        if size <= limits.RESULT_INLINE_MAX:
            payload = b"".join(body)
            self._write(pack(kind, Flags.END, stream_id, meta, len(payload)) + payload)
            return
        self._write(pack(kind, Flags.NONE, stream_id, meta))
        offset = 0
        for piece in _slices(body, limits.BULK_DATA_MAX):
            end = Flags.END if offset + len(piece) >= size else Flags.NONE
            payload_size = limits.DATA_OFFSET + len(piece)
            self._write(pack(FrameType.DATA, end, stream_id, b"", payload_size))
            self._write(_OFFSET.pack(offset))
            self._write(piece)
            offset += len(piece)

    def _write(self, data: Piece) -> None:
        sent = os.write(self._descriptor, data)
        while sent < len(data):
            data = memoryview(data)[sent:]
            sent = os.write(self._descriptor, data)


@lru_cache(maxsize=64)
def _order(meta: bytes) -> RunJob:
    """Decode an order; those of one kind of job are all the same."""
    order = codec.decode(meta, (Shape.REQUEST,), lenient=False)
    if not isinstance(order, RunJob):
        raise FrameError(f"worker: expected RunJob, got {type(order).__name__}")
    return order


def _slices(body: Iterable[Piece], most: int) -> Iterator[Piece]:
    """Cut pieces of any size into pieces of at most ``most`` bytes."""
    for piece in body:
        view = memoryview(piece).cast("B")
        for at in range(0, len(view), most):
            yield view[at : at + most]
