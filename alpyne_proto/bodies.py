"""Requests, answers and bodies on their way out: cut into frames only when a record has room.

Source: spec/PROTOCOL.md, "Streams", "Flow control" and "Priorities".
"""

from collections import deque
from struct import Struct

from alpyne_proto import limits
from alpyne_proto.compression import Compressor
from alpyne_proto.flow import SendCredit
from alpyne_proto.frame import Flags, FrameType, pack
from alpyne_proto.scheduler import Scheduler
from alpyne_proto.streams import Outgoing, Sending, Stream, StreamTable, ordinal

Data = bytes | memoryview

QUEUE_MAX = 256 * 1024  # bytes of one stream that should wait here; the rest waits outside
_DATA_HEAD = Struct(">BBHIIQ")  # frame header and offset of a DATA frame without meta
_OPENED_ALONG = 1024  # body bytes of a request that goes early because a later one is more urgent
_WORTH_SPLITTING = 16 * 1024  # a smaller rest of a record is left empty
_END, _ZSTD = int(Flags.END), int(Flags.ZSTD)  # joining flags of an IntFlag is slow
_NO_ROOM = -1
_BLOCKED = 0


class Bodies:
    """What the streams of one connection have to send."""

    __slots__ = (
        "_compressor",
        "_scheduler",
        "_starved",
        "_streams",
        "_unopened",
        "credit",
        "queued",
    )

    def __init__(
        self, streams: StreamTable, credit: SendCredit, compressor: Compressor | None
    ) -> None:
        """credit: of the whole connection; compressor: None where nothing is compressed."""
        self._streams = streams
        self._compressor = compressor
        self._scheduler = Scheduler()
        self._unopened: deque[Stream] = deque()  # our streams whose REQUEST is not sent, by id
        self._starved: dict[int, Stream] = {}  # streams that wait for the connection's credit
        self.credit = credit
        self.queued = 0  # body bytes of all streams

    @property
    def pending(self) -> bool:
        """Whether a stream may have something to send."""
        return len(self._scheduler) > 0

    # --- what comes in ----------------------------------------------------------------------

    def open(self, stream: Stream) -> None:
        """Let a new stream of ours wait for its turn."""
        self._unopened.append(stream)
        self._scheduler.add(stream)

    def add(self, stream: Stream) -> None:
        """Let a stream wait for its turn, because something has changed for it."""
        self._scheduler.add(stream)

    def give(self, stream: Stream, data: Data) -> None:
        """Append to what a stream sends; ``data`` must not change any more."""
        if data:
            stream.chunks.append(data)
            stream.queued += len(data)
            self.queued += len(data)

    def drop(self, stream: Stream) -> None:
        """Forget what a stream would have sent behind its head."""
        self.queued -= stream.queued
        stream.queued = 0
        stream.chunks.clear()
        stream.trailer = b""
        self._starved.pop(stream.id, None)

    def forget_unopened(self, above: int) -> None:
        """Never open the streams with ids above ``above``."""
        while self._unopened and self._unopened[-1].id > above:
            self._unopened.pop().head = None

    def room_of(self, stream: Stream) -> int:
        """Return the bytes that a stream takes now; 0 where waking a writer is not worth it."""
        room = min(
            stream.outgoing.left - stream.queued,
            self.credit.left - self.queued,
            QUEUE_MAX - stream.queued,
        )
        return room if room >= QUEUE_MAX // 2 or (room > 0 and not stream.queued) else 0

    def feed_starved(self) -> None:
        """Wake the streams that waited for the connection's credit."""
        for stream in self._starved.values():
            self._scheduler.add(stream)
        self._starved.clear()

    def wake_unopened(self) -> None:
        """Wake the streams that waited for MAX_STREAMS."""
        for stream in self._unopened:
            if ordinal(stream.id) > self._streams.peer_max:
                break
            self._scheduler.add(stream)

    # --- what goes out ----------------------------------------------------------------------

    def take(self, parts: list[Data], room: int) -> None:
        """Append to ``parts`` the frames whose turn it is, at most ``room`` bytes."""
        scheduler = self._scheduler
        while (stream := scheduler.next()) is not None:
            used = self._take_turn(stream, parts, room)
            if used == _NO_ROOM:
                return
            room -= used
            scheduler.served(stream, used, again=used > 0 and self._has_more(stream))

    def _has_more(self, stream: Stream) -> bool:
        if stream.queued:
            return self._credit_of(stream) > 0
        return stream.sending is Sending.FINISHED

    def _credit_of(self, stream: Stream) -> int:
        """Return the bytes that may be sent; remember a stream that lacks the connection's."""
        own, common = stream.outgoing.left, self.credit.left
        if not common and own:
            self._starved[stream.id] = stream
        return min(own, common)

    def _take_turn(self, stream: Stream, parts: list[Data], room: int) -> int:
        """Append the stream's next frame; return its bytes, _BLOCKED or _NO_ROOM."""
        if stream.head is None:
            return self._take_data(stream, parts, room)
        if not stream.is_ours:
            return self._take_head(stream, parts, room)
        if ordinal(stream.id) > self._streams.peer_max:
            return _BLOCKED
        used = 0
        # Ids are used in order: what was opened earlier goes first, with little of its body.
        while (earlier := self._unopened[0]) is not stream:
            size = self._take_head(earlier, parts, room - used, most=_OPENED_ALONG)
            if size == _NO_ROOM:
                return _NO_ROOM
            used += size
        size = self._take_head(stream, parts, room - used)
        return _NO_ROOM if size == _NO_ROOM else used + size

    def _take_head(
        self, stream: Stream, parts: list[Data], room: int, most: int | None = None
    ) -> int:
        """Append REQUEST or RESPONSE; of a body longer than ``most`` nothing goes along."""
        head = stream.head or b""
        size = 0
        if stream.queued and (most is None or stream.queued <= most):
            size = min(stream.queued, self._credit_of(stream), limits.BULK_DATA_MAX)
        size = _fit(size, room - limits.FRAME_HEADER - len(head))
        if size == _NO_ROOM:
            return _NO_ROOM
        if stream.is_ours:
            self._unopened.popleft()
        stream.head = None
        body, flags = self._cut(stream, size)
        flags |= stream.head_flags
        if not stream.trailer:
            flags |= self._end(stream)
        body_size = sum(map(len, body))
        parts.append(pack(stream.head_type, flags, stream.id, head, body_size))
        parts += body
        self._streams.forget_if_done(stream)
        return limits.FRAME_HEADER + len(head) + body_size

    def _take_data(self, stream: Stream, parts: list[Data], room: int) -> int:
        """Append DATA."""
        size = 0
        if stream.queued:
            size = min(stream.queued, self._credit_of(stream), limits.BULK_DATA_MAX)
            if not size:
                return _BLOCKED
        elif stream.sending is not Sending.FINISHED:
            return _BLOCKED
        size = _fit(size, room - _DATA_HEAD.size - len(stream.trailer))
        if size == _NO_ROOM:
            return _NO_ROOM
        offset = stream.outgoing.used
        body, flags = self._cut(stream, size)
        end = self._end(stream)
        flags |= end
        payload_size = limits.DATA_OFFSET + sum(map(len, body))
        trailer = stream.trailer if end else b""
        if trailer:
            parts.append(pack(FrameType.DATA, flags, stream.id, trailer, payload_size))
            parts.append(offset.to_bytes(limits.DATA_OFFSET))
        else:
            parts.append(_DATA_HEAD.pack(FrameType.DATA, flags, 0, payload_size, stream.id, offset))
        parts += body
        if end:
            self._streams.forget_if_done(stream)
        return limits.FRAME_HEADER + len(trailer) + payload_size

    def _end(self, stream: Stream) -> int:
        """Return the flag END, and end our side, where nothing is left to send."""
        if stream.queued or stream.sending is not Sending.FINISHED:
            return 0
        stream.send(Outgoing.END)
        return _END

    def _cut(self, stream: Stream, size: int) -> tuple[list[Data], int]:
        """Take ``size`` bytes off a stream's queue; return them, and ZSTD if they are packed."""
        stream.queued -= size
        self.queued -= size
        stream.outgoing.used += size
        self.credit.used += size
        chunks = stream.chunks
        body: list[Data] = []
        left = size
        while left:
            chunk = chunks.popleft()
            if len(chunk) > left:
                view = memoryview(chunk)
                chunks.appendleft(view[left:])
                chunk = view[:left]
            body.append(chunk)
            left -= len(chunk)
        if self._compressor is None or size < limits.COMPRESS_MIN:
            return body, 0
        plain = body[0] if len(body) == 1 else b"".join(body)
        packed = self._compressor.compress(stream, plain)
        return ([plain], 0) if packed is None else ([packed], _ZSTD)


def _fit(size: int, room: int) -> int:
    """Return how many of ``size`` bytes go into ``room``, _NO_ROOM where it is better to wait."""
    if size <= room:
        return size
    return room if room >= _WORTH_SPLITTING else _NO_ROOM
