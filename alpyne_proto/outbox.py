"""What goes out: which frames stand in the next record, decided when the record is asked for.

Order in a record: SETTINGS, interrupts, control frames, credit, then bodies by urgency. Everything
before the bodies is exempt from flow control, so two sides whose windows are full still hear each
other.

Source: spec/PROTOCOL.md, "Priorities".
"""

from collections import deque
from struct import Struct

from alpyne_proto import limits
from alpyne_proto.codec import encode
from alpyne_proto.compression import Compressor
from alpyne_proto.errors import ErrorCode, RemoteProtocolError
from alpyne_proto.flow import ReceiveCredit, SendCredit
from alpyne_proto.frame import Flags, FrameType, pack
from alpyne_proto.interrupts import InterruptSender
from alpyne_proto.messages import control
from alpyne_proto.registry import Message
from alpyne_proto.scheduler import Scheduler
from alpyne_proto.streams import Outgoing, Receiving, Sending, Stream, StreamTable, ordinal

Data = bytes | memoryview

_DATA_HEAD = Struct(">BBHIIQ")  # frame header and offset of a DATA frame without meta
_ANSWERS_MOST = 1024  # control frames that may wait for a peer that does not read
_OPENED_ALONG = 1024  # payload that a stream may bring with it when a later one pulls it forward
_WORTH_SPLITTING = 16 * 1024  # a smaller rest of a record is left empty
QUEUE_MAX = 256 * 1024  # bytes of one stream that should wait here; the rest waits outside
_NO_ROOM = -1
_BLOCKED = 0


class Outbox:
    """Everything that waits to be sent on one connection."""

    __slots__ = (
        "_compressor",
        "_control",
        "_credit_due",
        "_max_data_due",
        "_max_streams_due",
        "_settings",
        "_starved",
        "_streams",
        "_unopened",
        "credit",
        "interrupts",
        "queued",
        "receive_credit",
        "scheduler",
    )

    def __init__(
        self,
        streams: StreamTable,
        credit: SendCredit,
        receive_credit: ReceiveCredit,
        compressor: Compressor | None,
    ) -> None:
        self._streams = streams
        self._compressor = compressor
        self._settings: list[bytes] = []
        self._control: deque[bytes] = deque()
        self._credit_due: dict[int, Stream] = {}
        self._max_data_due = False
        self._max_streams_due = False
        self._unopened: deque[Stream] = deque()  # our streams whose REQUEST is not sent, by id
        self._starved: dict[int, Stream] = {}  # streams that wait for the connection's credit
        self.credit = credit
        self.receive_credit = receive_credit
        self.interrupts = InterruptSender()
        self.scheduler = Scheduler()
        self.queued = 0  # body bytes of all streams

    @property
    def is_empty(self) -> bool:
        """Whether there is surely nothing to send. Waiting interrupts count as something."""
        return not (
            self._control
            or self._settings
            or self._max_data_due
            or self._credit_due
            or self._max_streams_due
            or len(self.scheduler)
            or self.interrupts.waiting
        )

    # --- what comes in ----------------------------------------------------------------------

    def settle(self, settings: control.Settings) -> None:
        """Queue SETTINGS, ahead of all else: what follows is legal only behind it."""
        self._settings.append(control_frame(FrameType.SETTINGS, settings))

    def send_control(
        self, type: FrameType, message: Message | None = None, stream_id: int = 0, flags: int = 0
    ) -> None:
        """Queue a control frame of our own accord."""
        self._control.append(control_frame(type, message, stream_id, flags))

    def answer(
        self, type: FrameType, message: Message | None = None, stream_id: int = 0, flags: int = 0
    ) -> None:
        """Queue a control frame that something of the peer's has caused.

        Raises RemoteProtocolError (TOO_BUSY) where the peer makes us answer and does not read.
        """
        if len(self._control) >= _ANSWERS_MOST:
            error = RemoteProtocolError(
                f"{len(self._control)} control frames wait for a peer that does not read"
            )
            error.code = ErrorCode.TOO_BUSY
            raise error
        self._control.append(control_frame(type, message, stream_id, flags))

    def open(self, stream: Stream) -> None:
        """Let a new stream of ours wait for its turn."""
        self._unopened.append(stream)
        self.scheduler.add(stream)

    def room_of(self, stream: Stream) -> int:
        """Return the bytes that a stream takes now; 0 where waking a writer is not worth it."""
        room = min(
            stream.outgoing.left - stream.queued,
            self.credit.left - self.queued,
            QUEUE_MAX - stream.queued,
        )
        return room if room >= QUEUE_MAX // 2 or (room > 0 and not stream.queued) else 0

    def give(self, stream: Stream, data: Data) -> None:
        """Append to what a stream sends; ``data`` must not change any more."""
        if data:
            stream.chunks.append(data)
            stream.queued += len(data)
            self.queued += len(data)

    def drop(self, stream: Stream) -> None:
        """Forget what a stream would have sent."""
        self.queued -= stream.queued
        stream.drop_queue()
        self._starved.pop(stream.id, None)

    def abandon(self, stream: Stream, reset: control.Reset) -> None:
        """Send RESET instead of the rest of a stream."""
        self.drop(stream)
        if stream.unopened:
            # Its id must be used up in its turn, but the peer shall not see the request.
            stream.head = encode(reset)
            stream.head_type = FrameType.RESET
            stream.head_flags = 0
            self.scheduler.add(stream)
        else:
            stream.head = None
            self.send_control(FrameType.RESET, reset, stream.id)

    def forget_unopened(self, above: int) -> list[Stream]:
        """Drop the streams of ours with ids above ``above`` that were not opened yet."""
        dropped = [stream for stream in self._unopened if stream.id > above]
        self._unopened = deque(stream for stream in self._unopened if stream.id <= above)
        for stream in dropped:
            stream.head = None
        return dropped

    def close_if_done(self, stream: Stream) -> None:
        """Take a stream out of the table where nothing can happen to it any more."""
        if stream.done:
            self._credit_due.pop(stream.id, None)
            if self._compressor is not None:
                self._compressor.forget(stream.id)
            if self._streams.forget(stream):
                self._max_streams_due = True

    def discard(self, stream: Stream) -> None:
        """Consume all that came of a stream and that nobody will read."""
        rest = stream.incoming.outstanding
        if rest:
            stream.incoming.consumed += rest
            self.refund_connection(rest)
        self.close_if_done(stream)

    def refund(self, stream: Stream, size: int) -> None:
        """Give credit back for ``size`` consumed bytes of a stream that still receives."""
        if stream.incoming.consume(size) and stream.receiving is Receiving.BODY:
            self._credit_due[stream.id] = stream
        self.refund_connection(size)

    def refund_connection(self, size: int) -> None:
        """Give credit back for ``size`` consumed bytes, for the connection alone."""
        if self.receive_credit.consume(size):
            self._max_data_due = True

    def announce_streams(self) -> None:
        """Send the new limit of streams with the next record."""
        self._max_streams_due = True

    def feed_starved(self) -> None:
        """Wake the streams that waited for the connection's credit."""
        for stream in self._starved.values():
            self.scheduler.add(stream)
        self._starved.clear()

    def wake_unopened(self) -> None:
        """Wake the streams that waited for MAX_STREAMS."""
        for stream in self._unopened:
            if ordinal(stream.id) > self._streams.peer_max:
                break
            self.scheduler.add(stream)

    # --- what goes out ----------------------------------------------------------------------

    def take(self, now: float, room: int) -> list[Data]:
        """Return the bytes of the next record's frames, at most ``room`` of them; [] for none."""
        parts: list[Data] = []
        if self._settings:
            parts += self._settings
            self._settings.clear()
            room -= sum(map(len, parts))
        if self.interrupts.waiting:
            for frame in self.interrupts.take(now, room):
                parts.append(frame)
                room -= len(frame)
        if self._max_data_due or self._credit_due or self._max_streams_due:
            self._queue_credit()
        while self._control and len(self._control[0]) <= room:
            frame = self._control.popleft()
            parts.append(frame)
            room -= len(frame)
        if not self._control and len(self.scheduler):
            self._take_bodies(parts, room)
        return parts

    def _queue_credit(self) -> None:
        """Turn due credit into frames, now, so that each carries the newest limit."""
        if self._max_data_due:
            self._max_data_due = False
            limit = control.MaxData(self.receive_credit.announce())
            self._control.append(control_frame(FrameType.MAX_DATA, limit))
        if self._max_streams_due:
            self._max_streams_due = False
            streams = control.MaxStreams(self._streams.announce())
            self._control.append(control_frame(FrameType.MAX_STREAMS, streams))
        for stream in self._credit_due.values():
            if stream.receiving is not Receiving.BODY:
                continue
            own = control.MaxStreamData(stream.incoming.announce())
            self._control.append(control_frame(FrameType.MAX_STREAM_DATA, own, stream.id))
        self._credit_due.clear()

    def _take_bodies(self, parts: list[Data], room: int) -> None:
        scheduler = self.scheduler
        while (stream := scheduler.next()) is not None:
            used = self._take_frames(stream, parts, room)
            if used == _NO_ROOM:
                return
            room -= used
            scheduler.served(stream, used, again=used > 0 and self._has_more(stream))

    def _has_more(self, stream: Stream) -> bool:
        if stream.head is not None:
            return True
        if stream.queued:
            return self._credit_of(stream) > 0 or self._starve(stream)
        return stream.sending is Sending.FINISHED

    def _starve(self, stream: Stream) -> bool:
        """Remember a stream that lacks only the connection's credit; return False."""
        if stream.outgoing.left > 0:
            self._starved[stream.id] = stream
        return False

    def _credit_of(self, stream: Stream) -> int:
        return min(stream.outgoing.left, self.credit.left)

    def _take_frames(self, stream: Stream, parts: list[Data], room: int) -> int:
        """Append the stream's next frame; return its bytes, _BLOCKED or _NO_ROOM."""
        if not stream.unopened:
            return self._take_frame(stream, parts, room)
        # Ids are used in order: what was opened earlier is opened first, with little of its body.
        if ordinal(stream.id) > self._streams.peer_max:
            return _BLOCKED
        used = 0
        while self._unopened and self._unopened[0] is not stream:
            earlier = self._unopened[0]
            size = self._take_frame(earlier, parts, room - used, most=_OPENED_ALONG)
            if size == _NO_ROOM:
                return _NO_ROOM
            used += size
        size = self._take_frame(stream, parts, room - used)
        return _NO_ROOM if size == _NO_ROOM else used + size

    def _take_frame(self, stream: Stream, parts: list[Data], room: int, most: int = 1 << 62) -> int:
        if stream.head is not None:
            return self._take_head(stream, parts, room, most)
        size = min(stream.queued, self._credit_of(stream), limits.BULK_DATA_MAX)
        if size == 0:
            if stream.queued:
                self._starve(stream)
                return _BLOCKED
            if stream.sending is not Sending.FINISHED:
                return _BLOCKED
        meta_size = len(stream.trailer)
        left = room - _DATA_HEAD.size - meta_size
        if left < size:
            if left < _WORTH_SPLITTING:
                return _NO_ROOM
            size = left
        return self._append_data(stream, parts, size)

    def _take_head(self, stream: Stream, parts: list[Data], room: int, most: int) -> int:
        """Append REQUEST or RESPONSE, with as much of its body as may go along."""
        head = stream.head
        assert head is not None  # asked by the caller
        left = room - limits.FRAME_HEADER - len(head)
        size = stream.queued
        if size > most:
            size = 0
        size = min(size, self._credit_of(stream), limits.BULK_DATA_MAX)
        if left < size and left < _WORTH_SPLITTING:
            return _NO_ROOM
        if left < 0:
            return _NO_ROOM
        size = min(size, left)
        if stream.unopened:
            self._unopened.popleft()
        stream.head = None
        flags = stream.head_flags
        body = self._cut(stream, size)
        if self._compressor is not None:
            body, flags = self._compress(stream, body, size, flags)
        if stream.sending is Sending.FINISHED and not stream.queued and not stream.trailer:
            flags |= Flags.END
            stream.send(Outgoing.END)
        payload_size = sum(map(len, body))
        parts.append(pack(stream.head_type, flags, stream.id, head, payload_size))
        parts += body
        self.close_if_done(stream)
        return limits.FRAME_HEADER + len(head) + payload_size

    def _append_data(self, stream: Stream, parts: list[Data], size: int) -> int:
        offset = stream.outgoing.used
        flags = 0
        body = self._cut(stream, size)
        if self._compressor is not None:
            body, flags = self._compress(stream, body, size, flags)
            payload_size = limits.DATA_OFFSET + sum(map(len, body))
        else:
            payload_size = limits.DATA_OFFSET + size
        trailer = b""
        ends = stream.sending is Sending.FINISHED and not stream.queued
        if ends:
            flags |= Flags.END
            trailer = stream.trailer
            stream.send(Outgoing.END)
        if trailer:
            parts.append(pack(FrameType.DATA, flags, stream.id, trailer, payload_size))
            parts.append(offset.to_bytes(8))
        else:
            parts.append(_DATA_HEAD.pack(FrameType.DATA, flags, 0, payload_size, stream.id, offset))
        parts += body
        if ends:
            self.close_if_done(stream)
        return limits.FRAME_HEADER + len(trailer) + payload_size

    def _compress(
        self, stream: Stream, body: list[Data], size: int, flags: int
    ) -> tuple[list[Data], int]:
        if size < limits.COMPRESS_MIN or self._compressor is None:
            return body, flags
        plain = body[0] if len(body) == 1 else b"".join(body)
        packed = self._compressor.compress(stream.id, plain)
        return ([plain], flags) if packed is None else ([packed], flags | Flags.ZSTD)

    def _cut(self, stream: Stream, size: int) -> list[Data]:
        """Take ``size`` bytes from the stream's queue and count them as sent."""
        stream.queued -= size
        self.queued -= size
        stream.outgoing.used += size
        self.credit.used += size
        chunks = stream.chunks
        body: list[Data] = []
        while size:
            chunk = chunks.popleft()
            if len(chunk) > size:
                view = memoryview(chunk)
                chunks.appendleft(view[size:])
                chunk = view[:size]
            body.append(chunk)
            size -= len(chunk)
        return body


def control_frame(
    type: FrameType, message: Message | None = None, stream_id: int = 0, flags: int = 0
) -> bytes:
    """Return a whole frame without payload."""
    return pack(type, flags, stream_id, b"" if message is None else encode(message))
