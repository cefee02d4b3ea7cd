"""What a running job asks of its node: objects, over the job's socket pair."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from alpyne_grid.nodes.compute.backends.base import TaskObjects
from alpyne_grid.nodes.compute.backends.link import QUEUED_MAX, FrameLink, framed

from alpyne_proto import codec, limits
from alpyne_proto.errors import AlpyneError, ErrorCode, FrameError, RequestFailed
from alpyne_proto.frame import Flags, Frame, FrameType
from alpyne_proto.messages.worker import ObjectRefused, ReadObject, WriteObject
from alpyne_proto.registry import Message, Shape

_TEXT_MAX = 1000  # characters; at most 4 bytes each


class ObjectCalls:
    """Serves the requests of one execution, one after the other as the worker sends them."""

    def __init__(self, link: FrameLink, open_objects: Callable[[], TaskObjects | None]) -> None:
        """``open_objects`` is called at the first request; None means that there are none."""
        self._link = link
        self._open = open_objects
        self._objects: TaskObjects | None = None
        self._running: asyncio.Task[None] | None = None
        self._body: _Body | None = None

    @property
    def counters(self) -> tuple[int, int, int]:
        """Object bytes read, object bytes written, reads that failed over."""
        if self._objects is None:
            return 0, 0, 0
        return self._objects.read_bytes, self._objects.written_bytes, self._objects.failovers

    def take(self, frame: Frame) -> None:
        """Take a frame of a worker's request; FrameError for what is no such request."""
        if frame.type == FrameType.DATA and self._body is not None:
            self._body.take(frame)
            return
        if frame.type != FrameType.REQUEST or frame.stream_id % 2 or self._running is not None:
            raise FrameError(f"worker: frame {frame.type:#04x} on stream {frame.stream_id} here")
        order = codec.decode(frame.meta, (Shape.REQUEST,), lenient=False)
        self._body = None
        if isinstance(order, WriteObject):
            self._body = _Body(self._link, frame)
        elif not isinstance(order, ReadObject):
            raise FrameError(f"worker: {type(order).__name__} while a job runs")
        self._running = asyncio.get_running_loop().create_task(self._serve(order, frame.stream_id))

    def close(self) -> None:
        """Drop what is being served: the execution is over."""
        if self._running is not None:
            self._running.cancel()
            self._running = None
        if self._objects is not None:
            self._objects.close()
        self._link.resume()

    async def _serve(self, order: ReadObject | WriteObject, stream_id: int) -> None:
        data = b""
        try:
            answer, data = await self._answer(order)
        except AlpyneError as error:
            answer = _refusal(error.code, error)
        except Exception as error:  # noqa: BLE001 - the worker waits for an answer, whatever failed
            answer = _refusal(ErrorCode.INTERNAL, error)
        if self._body is not None:
            self._body.drop()  # a write that failed may not have taken all of it
        self._running = None  # the next request may come as soon as the answer is out
        for piece in framed(FrameType.RESPONSE, stream_id, answer, data):
            self._link.send(piece)
            await self._link.drained()

    async def _answer(self, order: ReadObject | WriteObject) -> tuple[Message, bytes]:
        if self._objects is None:
            self._objects = self._open()
        if self._objects is None:
            raise RequestFailed(ErrorCode.UNSUPPORTED, "jobs of this node reach no objects")
        if isinstance(order, ReadObject):
            return await self._objects.read(order)
        body = self._body
        assert body is not None, "take() makes the body before it starts this"
        written = await self._objects.write(order, body.pieces())
        return written, b""


def _refusal(code: ErrorCode, error: Exception) -> ObjectRefused:
    return ObjectRefused(code=int(code), text=(str(error) or type(error).__name__)[:_TEXT_MAX])


class _Body:
    """The body of a WriteObject, taken from the worker only as fast as it is used."""

    def __init__(self, link: FrameLink, first: Frame) -> None:
        self._link = link
        self._stream_id = first.stream_id
        self._waiting: deque[bytes] = deque()
        self._queued = 0
        self._ended = False
        self._dropped = False
        self._more = asyncio.Event()
        self._add(bytes(first.payload), ended=bool(first.flags & Flags.END))

    def take(self, frame: Frame) -> None:
        """Take a DATA frame of it."""
        if frame.stream_id != self._stream_id or self._ended:
            raise FrameError(f"worker: DATA on stream {frame.stream_id} is not expected")
        data = bytes(memoryview(frame.payload)[limits.DATA_OFFSET :])
        self._add(data, ended=bool(frame.flags & Flags.END))

    def drop(self) -> None:
        """Let what still comes of it pass unread."""
        self._dropped = True
        self._waiting.clear()
        self._queued = 0
        self._link.resume()

    def _add(self, data: bytes, *, ended: bool) -> None:
        self._ended = ended
        if self._dropped:
            return
        if data:
            self._waiting.append(data)
        self._queued += len(data)
        self._more.set()
        if self._queued > QUEUED_MAX:
            self._link.pause()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come, up to the end."""
        while True:
            while self._waiting:
                data = self._waiting.popleft()
                self._queued -= len(data)
                if self._queued <= QUEUED_MAX:
                    self._link.resume()
                yield data
            if self._ended:
                return
            self._more.clear()
            await self._more.wait()
